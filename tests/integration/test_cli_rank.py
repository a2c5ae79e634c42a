"""`tamis rank`, as a shell runs it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tamis import Reranker
from tests.integration.serving import TAMIS, Served, Shell, quiet_environment

QUERY = "what is the capital of france"
DOCUMENTS = [
    "berlin is the capital of germany",
    "paris is the capital of france",
    "鼓筛是一种细筛",
]
LINES = "\n".join(DOCUMENTS) + "\n"
TOLERANCE = 1e-4


def test_shell_reranker_and_http_give_the_same_order_and_logits(
    shell: Shell, served: Served, tiny_model: Path
) -> None:
    done = shell.run("rank", QUERY, "-m", tiny_model, "--json", given=LINES)
    printed = [json.loads(line) for line in done.out.splitlines()]
    over_http = served.rerank(QUERY, DOCUMENTS).json()["results"]
    with Reranker(tiny_model, threads=1) as reranker:
        ranking = reranker.rank(QUERY, DOCUMENTS)
    order = [ranked.index for ranked in ranking]
    assert [fields["index"] for fields in printed] == order
    assert [result["index"] for result in over_http] == order
    logits = [ranked.logit for ranked in ranking]
    assert [fields["logit"] for fields in printed] == pytest.approx(logits, abs=TOLERANCE)
    assert [result["score"] for result in over_http] == pytest.approx(logits, abs=TOLERANCE)
    assert [fields["document"] for fields in printed] == [DOCUMENTS[index] for index in order]
    assert [fields["score"] for fields in printed] == pytest.approx(
        [ranked.score for ranked in ranking], abs=TOLERANCE
    )


def test_in_a_pipe_it_prints_plain_lines_and_nothing_else(shell: Shell, tiny_model: Path) -> None:
    done = shell.run("rank", QUERY, "-m", tiny_model, given=LINES)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert [DOCUMENTS[int(position) - 1] for _, position, _ in rows] == [row[2] for row in rows]
    scores = [float(score) for score, _, _ in rows]
    assert scores == sorted(scores, reverse=True)
    assert len(rows) == len(DOCUMENTS)


def test_on_a_terminal_it_draws_a_table(shell: Shell, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "documents.txt").write_text(LINES, encoding="utf-8")
    done = shell.run_on_terminal("rank", QUERY, tmp_path / "documents.txt", "-m", tiny_model)
    assert done.code == 0
    heading, _, *rows = done.out.splitlines()
    for word in ("#", "score", "logit", "was", "document"):
        assert word in heading
    assert len(rows) == len(DOCUMENTS)
    assert {document for document in DOCUMENTS if document in done.out} == set(DOCUMENTS)


@pytest.mark.parametrize(
    ("options", "n_results"),
    [
        (["--top-n", "1"], 1),
        (["-n", "99"], 3),
        (["--threshold", "1"], 0),
        (["--threshold", "0"], 3),
    ],
    ids=str,
)
def test_top_n_and_threshold_keep_the_best(
    shell: Shell, tiny_model: Path, options: list[str], n_results: int
) -> None:
    done = shell.run("rank", QUERY, "-m", tiny_model, *options, given=LINES)
    assert done.code == 0
    assert len(done.out.splitlines()) == n_results


def test_objects_come_out_as_they_went_in(shell: Shell, tiny_model: Path, tmp_path: Path) -> None:
    objects: list[dict[str, Any]] = [
        {"text": "one", "id": 2**80, "tags": [None, {"deep": []}]},
        {"id": "two", "text": "two", "title": "[bold]鼓筛[/bold]"},
        {"text": "three", "odd": "\ud800"},
    ]
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in objects))
    done = shell.run("rank", QUERY, path, "-m", tiny_model, "--json")
    printed = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, len(printed)) == (0, 3)
    assert [fields["document"] for fields in printed] == [objects[f["index"]] for f in printed]


def test_files_and_standard_input_are_ranked_together(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    for name, text in (("a.txt", "one\ntwo\n"), ("b.jsonl", '{"text": "four", "id": 4}\n')):
        (tmp_path / name).write_text(text)
    files = (tmp_path / "a.txt", "-", tmp_path / "b.jsonl")
    done = shell.run("rank", QUERY, *files, "-m", tiny_model, "--json", given="three\n")
    documents = {
        fields["index"]: fields["document"] for fields in map(json.loads, done.out.splitlines())
    }
    assert documents == {0: "one", 1: "two", 2: "three", 3: {"text": "four", "id": 4}}


def test_explain_says_which_words_matched(shell: Shell, tiny_maxsim: Path) -> None:
    done = shell.run(
        "rank", "giant panda", "-m", tiny_maxsim, "--explain", "--json", given="the panda\n"
    )
    (fields,) = map(json.loads, done.out.splitlines())
    matches = fields["explanation"]
    assert [match["query_token"] for match in matches] == ["giant", "panda"]
    for match in matches:
        start, end = match["document_span"]
        assert "the panda"[start:end] == match["document_token"]
    assert sum(match["share"] for match in matches) == pytest.approx(1)


def test_explain_adds_a_column_in_a_pipe(shell: Shell, tiny_maxsim: Path) -> None:
    done = shell.run("rank", "giant panda", "-m", tiny_maxsim, "--explain", given="the panda\n")
    _, _, text, matched = done.out.rstrip("\n").split("\t")
    assert (done.code, done.err, text) == (0, "", "the panda")
    assert matched.startswith("giant→")
    assert "  panda→" in matched


def test_explain_says_so_where_the_model_cannot_tell(shell: Shell, tiny_model: Path) -> None:
    done = shell.run("rank", QUERY, "-m", tiny_model, "--explain", given=LINES)
    assert (done.code, len(done.out.splitlines())) == (0, 3)
    assert "cannot say which words matched" in done.sentence


def test_equal_lines_keep_their_order_and_have_one_logit(shell: Shell, tiny_model: Path) -> None:
    done = shell.run("rank", QUERY, "-m", tiny_model, "--json", given="a bear\nwater\n" * 40)
    printed = [json.loads(line) for line in done.out.splitlines()]
    for text in ("a bear", "water"):
        copies = [fields for fields in printed if fields["document"] == text]
        assert len({fields["logit"] for fields in copies}) == 1
        assert [f["index"] for f in copies] == sorted(f["index"] for f in copies)


@pytest.mark.parametrize(
    ("keep", "margin", "n_second"), [("1", "0", 1), ("1", "1000", 3), ("99", "0", 3), ("0", "0", 0)]
)
def test_in_a_cascade_the_model_reads_as_many_as_the_options_let_it(
    shell: Shell, tiny_model: Path, tiny_maxsim: Path, keep: str, margin: str, n_second: int
) -> None:
    cascade = {"TAMIS_CASCADE__MODEL": str(tiny_maxsim), "TAMIS_CASCADE__MARGIN": margin}
    command = ["rank", QUERY, "-m", str(tiny_model), "--json", "--keep", keep]
    done = shell.run(*command, given=LINES, **cascade)
    printed = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, len(printed)) == (0, 3)
    marks = [fields["scored_by"] for fields in printed if "scored_by" in fields]
    assert len(marks) == (3 if keep != "0" else 0)
    assert [mark == printed[0].get("scored_by") for mark in marks].count(True) == n_second


def test_a_first_stage_that_is_not_there_is_one_sentence(shell: Shell, tiny_model: Path) -> None:
    command = ["rank", QUERY, "-m", str(tiny_model), "--keep", "1"]
    done = shell.run(*command, given=LINES, TAMIS_CASCADE__MODEL="/no/such")
    assert (done.code, done.out) == (78, "")
    assert "neither a local folder nor a valid Hub repository name" in done.sentence


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["lines", "json"])
def test_a_reader_who_has_enough_ends_it_without_a_word(
    shell: Shell, tiny_model: Path, tmp_path: Path, options: list[str]
) -> None:
    path = tmp_path / "documents.txt"
    path.write_text("".join(f"a bear {'x' * 200} {number}\n" for number in range(1_000)))
    with subprocess.Popen(
        [TAMIS, "rank", QUERY, path, "-m", tiny_model, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=quiet_environment() | shell.environment,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.parametrize(
    ("arguments", "given", "code", "sentence"),
    [
        (["none.txt"], b"", 65, "cannot read none.txt: No such file or directory"),
        ([], b'{"text": "a"}\nb\n', 65, "- line 2: not a JSON object with a `text`"),
        ([], b'{"text": "\\ud800"}\n', 65, "- line 1 is not valid Unicode: lone surrogate"),
        (["-m", "no/such", "--offline"], b"a\n", 69, "no/such is not on this machine"),
        (["-m", "/no/such"], b"a\n", 78, "neither a local folder nor a valid Hub repository name"),
        (["-m", "{tiny}", "--runtime", "torch"], b"a\n", 78, "pip install tamis[torch]"),
        (["-m", "{tiny}", "--device", "cuda"], b"a\n", 78, "cuda"),
    ],
    ids=str,
)
def test_what_goes_wrong_is_one_sentence_and_an_exit_code(
    shell: Shell, tiny_model: Path, arguments: list[str], given: bytes, code: int, sentence: str
) -> None:
    named = [argument.replace("{tiny}", str(tiny_model)) for argument in arguments]
    model = [] if "-m" in named else ["-m", str(tiny_model)]
    done = shell.run("rank", QUERY, *named, *model, given=given)
    assert (done.code, done.out) == (code, "")
    assert done.sentence.startswith("tamis: ")
    assert sentence in done.sentence


def test_without_a_network_it_says_so_in_one_sentence(shell: Shell) -> None:
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = shell.run("rank", QUERY, "-m", "no/such", given="a\n", **nobody)
    assert done.code == 69
    assert "http://127.0.0.1:9 does not answer" in done.sentence


@pytest.mark.parametrize("options", [["--top-n", "0"], ["--nonsense"]], ids=str)
def test_a_wrong_option_is_a_usage_error(shell: Shell, options: list[str]) -> None:
    done = shell.run("rank", QUERY, *options, given="a\n")
    assert done.code == 2
    assert options[0] in done.err
    assert "Traceback" not in done.err
