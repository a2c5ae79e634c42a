import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tamis.errors import SettingsError
from tamis.relevance.baseline import (
    LARGEST_MEAN,
    LEAST_EFFECTIVE,
    MOST_COUNTED,
    baseline_of,
    read_baseline,
    write_baseline,
)
from tamis.relevance.drift import compare
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


RANKINGS = "rankings"
ABSURD = [
    _set(*where, to=value)
    for where in [
        (RANKINGS, "n_requests"),
        (RANKINGS, "threshold"),
        (RANKINGS, "top", "n_effective"),
        (RANKINGS, "all", "n_effective"),
        (RANKINGS, "signals", "retention", "n"),
        (RANKINGS, "signals", "tokens", "mean"),
        (RANKINGS, "signals", "tokens", "variance"),
        (RANKINGS, "top", "counts"),
        (RANKINGS, "all", "counts"),
    ]
    for value in [
        *(1e308, -1e308, 10**30, 2**90, -(2**63) - 1, math.nan, math.inf, "1", None, [], {}),
        *([2**62] * 130, [1e308] * 130, [1] * 131, [0.5] * 130, ["1"] * 130, [True] * 130),
    ]
]


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
        _set("rankings", "top", "n_effective", to=1e-308),
        _set(
            "rankings",
            "signals",
            to={str(n): {"n": 1, "mean": 0, "variance": 0} for n in range(101)},
        ),
        _set("rankings", "model", to="m" * 5000),
        _set("rankings", "n_requests", to=0),
        _set("rankings", "signals", "retention", "variance", to=-1),
        _set("rankings", "signals", to=None),
        _set("recorded", to="yesterday"),
        *ABSURD,
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


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"\xff", b"{", b"[" * 100_000, b'{"x":' * 100_000, b" " * 2**21),
        b'{"x":1e999}',
    ],
)
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.json").write_bytes(content)
    with pytest.raises(SettingsError, match="is no baseline"):
        read_baseline(tmp_path / "b.json")


def test_a_file_that_is_not_there_or_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        read_baseline(tmp_path / "none.json")
    with pytest.raises(SettingsError, match="cannot write"):
        write_baseline(tmp_path / "none" / "b.json", baseline_of(snapshot(5, seed=1)))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "device", "folder"):
        with pytest.raises(SettingsError, match=name):
            read_baseline(tmp_path / name)


def test_the_largest_numbers_that_are_read_can_be_compared(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    write_baseline(file, baseline_of(snapshot(200, seed=1)))
    content = json.loads(file.read_text())
    rankings = content["rankings"]
    rankings["n_requests"] = MOST_COUNTED
    for name in ("top", "all"):
        rankings[name] = {"counts": [MOST_COUNTED] * 130, "n_effective": LEAST_EFFECTIVE}
    for moments in rankings["signals"].values():
        moments |= {"n": MOST_COUNTED, "mean": LARGEST_MEAN, "variance": LARGEST_MEAN**2}
    file.write_text(json.dumps(content))
    verdicts = compare(read_baseline(file).rankings, snapshot(200, seed=2))
    assert all(math.isfinite(one.distance) and math.isfinite(one.line) for one in verdicts)
    assert len(verdicts) == 4 + len(rankings["signals"])
