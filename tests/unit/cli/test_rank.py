import io

import pytest
from rich.console import Console

from tamis.cli import rank


def shown(*, on_terminal: bool) -> str:
    """What a progress bar writes while four batches of five pairs run."""
    console = Console(file=io.StringIO(), force_terminal=on_terminal, width=60)
    with rank._BatchProgress(console, n_pairs=20) as progress:
        for _ in range(4):
            progress.advance(5)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_long_work_shows_its_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "LONG_SECONDS", -1.0)
    assert "reranking" in shown(on_terminal=True)
    assert "100%" in shown(on_terminal=True)


def test_short_work_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "LONG_SECONDS", 1e9)
    assert shown(on_terminal=True) == ""


def test_a_pipe_gets_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "LONG_SECONDS", -1.0)
    assert shown(on_terminal=False).strip() == ""
