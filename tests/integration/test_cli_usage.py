"""Wrong usage, short options and completion, as a shell meets them."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.serving import TAMIS, Shell, quiet_environment


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rnk"], "`tamis` has no verb rnk; did you mean rank?"),
        (["pull", "x"], "`tamis` has no verb pull; did you mean models pull?"),
        (["start"], "`tamis` has no verb start; did you mean serve?"),
        (["models", "pul"], "`tamis models` has no verb pul; did you mean pull?"),
        (["xyzzy"], "`tamis` has no verb xyzzy; `tamis --help` says more"),
        (
            ["rank", "q", "--modle", "x"],
            "`tamis rank` has no option --modle; did you mean --model?",
        ),
        (
            ["rank", "q", "--top-k", "3"],
            "`tamis rank` has no option --top-k; did you mean --top-n?",
        ),
        (
            ["rank", "q", "--device", "gpu"],
            "'gpu' is not one of 'auto', 'cpu', 'cuda'; did you mean cuda?",
        ),
        (["serve", "--dtype", "fp16"], "; did you mean float16?"),
        (["bench", "--workload", "lon"], "; did you mean long?"),
        (["rank"], "missing argument 'query'; `tamis rank --help` says more"),
        (["models", "verify"], "no model is named"),
        (["models", "verify", "a", "--model", "b"], "two models are named, a and b; give one"),
        (["rank", "q", "--top-n"], "'--top-n' requires an argument"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_sentence_with_what_was_meant(
    shell: Shell, arguments: list[str], sentence: str
) -> None:
    done = shell.run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.sentence.startswith("tamis: ")
    assert sentence in done.sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prot", "9000"], "there is no option --prot; did you mean --port?"),
        (
            ["--server.prot", "9000"],
            "there is no option --server.prot; did you mean --server.port?",
        ),
        (["some/model", "--model", "other/model"], "two models are named"),
    ],
    ids=str,
)
@pytest.mark.parametrize("verb", ["serve", "settings"])
def test_an_unknown_setting_is_refused_with_what_was_meant(
    shell: Shell, verb: str, arguments: list[str], sentence: str
) -> None:
    done = shell.run(verb, *arguments)
    assert (done.code, done.out) == (78, "")
    assert sentence in done.sentence


def test_short_options_and_a_bare_name_are_the_settings(shell: Shell) -> None:
    words = "some/model --port 9000 --host 0.0.0.0 --workers 2 --device cpu --dtype int8 --offline"
    more = "--max-length 64 --threads 3 --runtime torch --revision main --log.level debug"
    done = shell.run("settings", "--json", *words.split(), *more.split())
    settings = json.loads(done.out)
    assert {name: settings["model"][name] for name in settings["model"] if name != "cache_dir"} == {
        "name": "some/model",
        "revision": "main",
        "runtime": "torch",
        "device": "cpu",
        "dtype": "int8",
        "max_length": 64,
        "threads": 3,
        "offline": True,
    }
    assert (settings["server"]["host"], settings["server"]["port"]) == ("0.0.0.0", 9000)
    assert (settings["scheduler"]["workers"], settings["log"]["level"]) == (2, "debug")


def test_serve_takes_a_bare_name_and_a_short_port(shell: Shell) -> None:
    done = shell.run("serve", "/no/such", "--port", "0", "--threads", "1")
    assert done.code == 78
    assert "is neither a local folder nor" in done.err


@pytest.mark.parametrize("verb", ["verify", "convert", "tune"])
def test_models_take_a_name_as_a_word_or_as_an_option(shell: Shell, verb: str) -> None:
    by_word = shell.run("models", verb, "/no/such")
    by_option = shell.run("models", verb, "-m", "/no/such")
    assert (by_word.code, by_word.err) == (by_option.code, by_option.err)
    assert "is neither a local folder nor" in by_word.sentence


def test_a_group_alone_shows_its_help(shell: Shell) -> None:
    done = shell.run("models")
    assert done.code == 2
    assert "calibrate" in done.err + done.out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("tamis ser", ["serve"]),
        ("tamis rank --dev", ["--device"]),
        ("tamis rank --device ", ["auto", "cpu", "cuda"]),
        ("tamis serve --dtype fl", ["float32", "float16"]),
        ("tamis serve --po", ["--port"]),
        ("tamis serve --model tamis", ["tamis-mini"]),
        ("tamis models verify tamis", ["tamis-mini"]),
        ("tamis bench --workload ", ["short", "rag-mix", "long"]),
    ],
)
def test_a_shell_completes_verbs_options_and_values(
    tmp_path: Path, words: str, found: list[str]
) -> None:
    n_before = len(words.split()) - (not words.endswith(" "))
    asked = {"_TAMIS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(n_before)}
    done = subprocess.run(
        [TAMIS],
        env=quiet_environment() | asked | {"HF_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == found


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [TAMIS, "--install-completion", name],
        env=os.environ
        | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{name} completion installed" in done.stdout
    assert any("tamis" in path.name for path in tmp_path.rglob("*") if path.is_file())
