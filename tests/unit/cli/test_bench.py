"""What `tamis bench` refuses before it measures anything."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tamis.bench import report
from tamis.cli.commands import app
from tamis.errors import SettingsError

URL = ("--url", "http://127.0.0.1:1")


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("it was measured")

    for name in ("engine_report", "server_report", "own_server_report"):
        monkeypatch.setattr(report, name, refuse)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*URL, "--server"], "--server starts a server, --url names one that runs"),
        (["--url", ""], "--url is empty"),
        (["--concurrency", "2"], "--concurrency is of a server"),
        (
            [*URL, "--model", "some/model", "--max-length", "64"],
            "--model, --max-length: the server",
        ),
        ([*URL, "--max-batch-tokens", "512"], "--max-batch-tokens: the server"),
        (["--server", "--concurrency", "0"], "Invalid value for '--concurrency'"),
        (["--workload", "huge"], "is not one of"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_wrong_usage(
    arguments: list[str], message: str
) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in result.output


def refused(*arguments: str) -> str:
    """The sentence of an error that is raised on purpose."""
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(result.exception, SettingsError)
    return str(result.exception)


@pytest.mark.parametrize("option", ["--output", "--plot"])
def test_a_file_that_cannot_be_written_is_refused(option: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert refused(option, str(folder)) == f"cannot write {folder}: it is a folder"
    lost = tmp_path / "gone" / "figure.png"
    assert refused(option, str(lost)) == f"cannot write {lost}: there is no folder {lost.parent}"


def test_a_figure_without_matplotlib_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "tamis.bench.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    sentence = refused("--plot", str(tmp_path / "figure.png"))
    assert "matplotlib" in sentence
    assert "pip install tamis[bench]" in sentence


def test_a_figure_of_no_known_format_is_refused(tmp_path: Path) -> None:
    sentence = refused("--plot", str(tmp_path / "figure.txt"))
    assert sentence.endswith("its name must end in .png, .svg, .pdf")
