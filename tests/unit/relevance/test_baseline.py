import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tamis.errors import SettingsError
from tamis.relevance.baseline import baseline_of, read_baseline, write_baseline
from tests.rankings import snapshot


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = baseline_of(snapshot(30, seed=1))
    write_baseline(tmp_path / "b.json", written)
    assert read_baseline(tmp_path / "b.json") == written
    content = json.loads((tmp_path / "b.json").read_text())
    assert (content["format"], content["version"]) == ("tamis-baseline", 1)
    assert sum(content["rankings"]["top"]["counts"]) == 30


def test_there_is_no_baseline_of_nothing() -> None:
    with pytest.raises(SettingsError, match="no rankings"):
        baseline_of(snapshot(0, seed=1))


def _set(*path: str, to: object) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("version", to=2),
        _set("format", to="something else"),
        _set("logit_edges", to=[0.0, 1.0]),
        _set("rankings", "top", "counts", to=[1, 2]),
        _set("rankings", "all", "counts", to=[0] * 130),
        _set("rankings", "all", "counts", to=[-1] * 130),
        _set("rankings", "top", "n_effective", to=0),
        _set("rankings", "n_requests", to=0),
        _set("rankings", "signals", "retention", "variance", to=-1),
        _set("rankings", "signals", to=None),
        _set("recorded", to="yesterday"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    file = tmp_path / "b.json"
    write_baseline(file, baseline_of(snapshot(30, seed=1)))
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="baseline"):
        read_baseline(file)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{"])
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.json").write_bytes(content)
    with pytest.raises(SettingsError, match="is no baseline"):
        read_baseline(tmp_path / "b.json")


def test_a_file_that_is_not_there_or_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        read_baseline(tmp_path / "none.json")
    with pytest.raises(SettingsError, match="cannot write"):
        write_baseline(tmp_path / "none" / "b.json", baseline_of(snapshot(5, seed=1)))
