import json
from pathlib import Path

import pytest

from tests.integration.serving import Shell

LINE = {
    "query": "what is a panda",
    "documents": ["the panda is a bear", "water boils at degrees", "paris", "the sky"],
    "grades": [2, 0, 0, 1],
}


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_report_is_made_kept_listed_and_obeyed(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    data = written(tmp_path / "few.jsonl", LINE, LINE | {"grades": None})
    done = shell.run("models", "calibrate", tiny_model, "--data", data, "--json", **cache)
    assert done.code == 0
    report = json.loads(done.out)
    assert (report["n_queries"], report["n_pairs"], report["n_judged_queries"]) == (2, 8, 1)
    assert report["logit_difference_max"] > 0
    assert report["max_length"] == 512
    assert report["processor"]
    assert report["verdict"].startswith("fails: 0 of 2 queries have more than 5 candidates")
    assert (Path(report["folder"]) / "tamis-calibration.json").exists()
    rows = [line.split("\t") for line in shell.run("models", "list", **cache).out.splitlines()]
    assert {row[4]: row[5] for row in rows}[report["folder"]] == report["verdict"]


def test_in_a_pipe_the_report_is_a_line_a_figure(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    data = written(tmp_path / "few.jsonl", LINE)
    done = shell.run("models", "calibrate", tiny_model, "--data", data)
    fields = dict(line.split("\t", 1) for line in done.out.splitlines())
    assert fields["n_queries"] == "1"
    assert fields["verdict"].startswith("fails")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"documents": ["a"]}, "line 2: Object missing required field `query`"),
        ({"query": "q", "documents": []}, "line 2: Expected `array` of length >= 1"),
        ({"query": "q", "documents": ["a"], "grades": [1, 2]}, "line 2: 2 grades for 1 documents"),
        ({"query": "q", "documents": ["a"], "grades": [-1]}, "line 2: Expected `float` >= 0"),
    ],
    ids=str,
)
def test_a_line_that_is_not_right_is_named(
    shell: Shell, tiny_model: Path, tmp_path: Path, line: object, reason: str
) -> None:
    data = written(tmp_path / "data.jsonl", LINE, line)
    done = shell.run("models", "calibrate", tiny_model, "--data", data)
    assert done.code == 65
    assert reason in done.sentence


def test_a_converted_model_has_nothing_to_compare_with(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    shell.run("models", "convert", tiny_model, "-o", tmp_path / "made")
    data = written(tmp_path / "data.jsonl", LINE)
    done = shell.run("models", "calibrate", tmp_path / "made", "--data", data)
    assert done.code == 78
    assert "calibrate its source" in done.sentence


def test_no_data_is_said_in_a_sentence(shell: Shell, tiny_model: Path, tmp_path: Path) -> None:
    empty = written(tmp_path / "empty.jsonl")
    for name, reason in ((empty, "has no queries"), (tmp_path / "gone", "cannot read")):
        done = shell.run("models", "calibrate", tiny_model, "--data", name)
        assert done.code == 65
        assert reason in done.sentence


def test_conversion_takes_the_dtype_that_the_report_stands_for(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    data = written(tmp_path / "one.jsonl", LINE)
    done = shell.run("models", "calibrate", tiny_model, "--data", data, "--json", **cache)
    report = Path(json.loads(done.out)["folder"]) / "tamis-calibration.json"
    before = shell.run("models", "convert", tiny_model, **cache).out
    flawless = {"tau": 1.0, "same_top_5": 1.0, "n_top_5_queries": 200, "ndcg_int8": 0.5}
    held = json.loads(report.read_text()) | flawless | {"ndcg_float32": 0.5}
    report.write_text(json.dumps(held))
    after = shell.run("models", "convert", tiny_model, **cache).out
    assert "-float32-" in before
    assert "-int8-" in after
    assert report.exists()


def test_a_cache_that_cannot_be_written_is_noticed_before_anything_is_scored(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    data = written(tmp_path / "data.jsonl", LINE)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "file")}
    done = shell.run("models", "calibrate", tiny_model, "--data", data, **cache)
    assert done.code == 78
    assert "cannot keep the report" in done.sentence
    assert "cannot store the converted model" not in done.err
