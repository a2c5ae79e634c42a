"""The other verbs of the command, as a shell runs them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tamis
from tamis.cli.demo import CASES, Case
from tamis.engine.location import EMBEDDED_FOLDER
from tamis.reranker import Reranker
from tests.integration.serving import Shell

DEFAULTS = {"server.host": '"127.0.0.1"', "server.port": "8000", "model.name": '"tamis-mini"'}


HEAVY = {
    *("numpy", "torch", "starlette", "uvicorn", "ctranslate2", "huggingface_hub", "tokenizers"),
    *("matplotlib", "multiprocessing", "redis"),
}


@pytest.mark.parametrize(
    ("module", "absent"),
    [("tamis", HEAVY | {"pydantic", "typer", "rich"}), ("tamis.cli.commands", HEAVY)],
)
def test_an_import_loads_nothing_heavy(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert absent.isdisjoint(done.stdout.split())


def test_version_is_the_packages(shell: Shell) -> None:
    assert shell.run("--version").out == f"tamis {tamis.__version__}\n"


def test_help_names_every_verb(shell: Shell) -> None:
    done = shell.run("--help")
    assert done.code == 0
    for verb in ("rank", "serve", "settings", "demo", "models", "cache"):
        assert re.search(rf"\b{verb}\b", done.out)


def test_settings_are_the_defaults(shell: Shell) -> None:
    done = shell.run("settings")
    printed = dict(line.split(" = ", 1) for line in done.out.splitlines())
    assert DEFAULTS.items() <= printed.items()


def test_settings_show_variables_and_arguments_over_them(shell: Shell) -> None:
    ports = {"TAMIS_SERVER__PORT": "9001", "TAMIS_SERVER__HOST": "0.0.0.0"}
    done = shell.run("settings", "--json", "--server.port", "9002", **ports)
    assert json.loads(done.out)["server"]["port"] == 9002
    assert json.loads(done.out)["server"]["host"] == "0.0.0.0"


def test_settings_names_describe_every_option(shell: Shell) -> None:
    names = shell.run("settings", "--names").out
    options = shell.run("settings").out
    assert "--server.port  (TAMIS_SERVER__PORT, default 8000)" in names
    for line in options.splitlines():
        assert f"--{line.partition(' = ')[0]}  (TAMIS_" in names


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--server.prot", "1"], {}, "there is no option --server.prot"),
        ([], {"TAMIS_SERVER_PORT": "1"}, "unknown variable TAMIS_SERVER_PORT"),
    ],
    ids=str,
)
@pytest.mark.parametrize("verb", ["settings", "serve"])
def test_a_setting_that_cannot_be_is_refused_with_78(
    shell: Shell, verb: str, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    done = shell.run(verb, *arguments, **environment)
    assert (done.code, done.out) == (78, "")
    assert message in done.sentence


def test_a_model_is_converted_into_a_folder_that_ranks_by_itself(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "converted"
    converted = shell.run("models", "convert", tiny_model, "-o", output)
    assert (converted.code, converted.out) == (0, f"{output}\n")
    texts = "the panda is a bear\nwater boils\n"
    arguments = ("rank", "what is a panda", "--json", "-m")
    ranked = [shell.run(*arguments, folder, given=texts) for folder in (tiny_model, output)]
    assert ranked[0].code == 0
    assert ranked[0].out == ranked[1].out


def test_a_converted_folder_is_verified_against_its_manifest(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "converted"
    shell.run("models", "convert", tiny_model, "-o", output)
    whole = shell.run("models", "verify", output)
    assert (whole.code, "files are what the manifest says" in whole.out) == (0, True)
    weights = output / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    changed = shell.run("models", "verify", output)
    assert changed.code == 78
    assert "model.safetensors" in changed.sentence
    ranked = shell.run("rank", "q", "-m", output, given="a\n")
    assert (ranked.code, ranked.sentence) == (78, changed.sentence)
    tuned = shell.run("models", "tune", output)
    assert (tuned.code, tuned.sentence) == (78, changed.sentence)


def test_a_folder_without_a_manifest_can_still_be_checked(shell: Shell, tiny_model: Path) -> None:
    done = shell.run("models", "verify", tiny_model)
    assert done.code == 0
    assert "can be run (3 layers of 32, classification head" in done.out


def test_a_converted_model_is_measured_when_it_is_asked_for(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "converted"
    shell.run("models", "convert", tiny_model, "-o", output)
    assert not (output / "tamis-tuning.json").exists()
    done = shell.run("models", "tune", output)
    assert done.code == 0
    assert [line.split("\t")[0] for line in done.out.splitlines()][:2] == ["512", "1024"]
    assert "token budget on this processor" in done.err
    assert "kernels on this processor: " in done.err
    assert (output / "tamis-tuning.json").exists()
    assert shell.run("models", "verify", output).code == 0


def test_what_was_not_converted_cannot_be_measured(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    done = shell.run("models", "tune", tiny_model, XDG_CACHE_HOME=str(tmp_path))
    assert done.code == 78
    assert "has not been converted" in done.sentence


def test_convert_overwrites_nothing(shell: Shell, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, reason in (("full", "is not empty"), ("file", "Not a directory")):
        done = shell.run("models", "convert", tiny_model, "-o", tmp_path / name)
        assert done.code == 78
        assert reason in done.sentence
    assert (tmp_path / "full" / "note").read_text() == (tmp_path / "file").read_text() == "mine"


def test_a_converted_model_is_listed_on_a_line_of_its_own(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    converted = shell.run("models", "convert", tiny_model, **cache).out.rstrip("\n")
    rows = [line.split("\t") for line in shell.run("models", "list", **cache).out.splitlines()]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("tamis-mini", "embedded", str(EMBEDDED_FOLDER)),
        ("xlm-roberta", "converted", converted),
    ]


def test_on_a_terminal_models_stand_in_a_table(shell: Shell) -> None:
    done = shell.run_on_terminal("models", "list")
    heading = done.out.splitlines()[0]
    assert "┃" in heading
    for word in ("model", "kind", "revision", "size", "folder"):
        assert word in heading


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["verify", "no/such"], 69),
        (["pull", "no/such", "--offline"], 69),
        (["convert", "/no/such"], 78),
    ],
    ids=str,
)
def test_a_model_that_is_not_there_is_one_sentence(
    shell: Shell, arguments: list[str], code: int
) -> None:
    done = shell.run("models", *arguments)
    assert done.code == code
    assert "no/such" in done.sentence


@pytest.fixture(scope="module")
def embedded() -> Reranker:
    return Reranker(offline=True, threads=1)


@pytest.mark.parametrize("case", CASES, ids=[case.query for case in CASES])
def test_the_embedded_model_puts_the_answer_first(embedded: Reranker, case: Case) -> None:
    ranking = embedded.rank(case.query, case.documents)
    assert ranking[0].index == case.answer


def test_the_demo_shows_each_case_before_and_after(shell: Shell) -> None:
    done = shell.run("demo", COLUMNS="200")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("before") == len(CASES)
    for case in CASES:
        assert case.query in done.out
        assert all(done.out.count(document) >= 2 for document in case.documents)


def test_a_model_that_is_here_is_not_looked_for_at_the_hub(shell: Shell, tiny_model: Path) -> None:
    for name in ("tamis-mini", str(tiny_model)):
        done = shell.run("models", "pull", name)
        assert done.code == 78
        assert "is on this machine" in done.err


def test_the_offline_variable_counts_for_pull_and_convert(shell: Shell) -> None:
    for verb in ("pull", "convert"):
        done = shell.run("models", verb, "some/model", TAMIS_MODEL__OFFLINE="true")
        assert done.code == 69
        assert "may not be asked (offline)" in done.err
