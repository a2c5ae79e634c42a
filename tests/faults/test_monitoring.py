"""Row 68: what only watches fails, or is given absurd numbers to compare with."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric

from tamis.errors import SettingsError
from tamis.relevance import monitor
from tamis.relevance.baseline import baseline_of, write_baseline
from tests.integration.serving import Shell, serving_fake
from tests.rankings import snapshot


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    """A baseline that is one."""
    path = tmp_path / "baseline.json"
    write_baseline(path, baseline_of(snapshot(200, seed=1)))
    return path


ABSURD: list[Any] = [-1, 0.5, 10**40, 1e308, math.nan, "many", None, [], True]


@pytest.mark.parametrize("value", ABSURD)
def test_row_68_absurd_counts_are_refused_at_the_start(baseline: Path, value: object) -> None:
    content = json.loads(baseline.read_text())
    for change in ({"counts": [value] * 130}, {"counts": [1] * 129}, {"n_effective": -1}):
        rankings = content["rankings"] | {"top": content["rankings"]["top"] | change}
        baseline.write_text(json.dumps(content | {"rankings": rankings}))
        with (
            pytest.raises(SettingsError, match=r"baseline\.json"),
            serving_fake(relevance={"baseline": baseline}),
        ):
            pass


def test_row_68_the_refusal_is_one_sentence(shell: Shell, baseline: Path) -> None:
    baseline.write_text(baseline.read_text().replace('"n_requests": 200', '"n_requests": 1e308'))
    done = shell.run("serve", "--server.port", "0", "--relevance.baseline", baseline)
    last = json.loads(done.err.splitlines()[-1])
    assert (done.code, last["exit_code"]) == (78, 78)
    assert "is no baseline" in last["event"]
    assert "Traceback" not in done.err


class Broken:
    """A collector that fails behind its first metric."""

    def collect(self) -> Iterator[Metric]:
        yield Metric("first_of_broken", "It is shown.", "gauge")
        raise ZeroDivisionError


def test_row_68_no_request_fails_because_watching_does(
    baseline: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("cannot convert float infinity to integer")

    monkeypatch.setattr(monitor, "compare", fail)
    monkeypatch.setattr(monitor, "REQUESTS_BETWEEN_LOOKS", 1)
    with serving_fake(relevance={"baseline": baseline}) as server:
        server.life.assembly._metrics.registry.register(Broken())
        for number in range(10):
            answer = server.rerank("q", ["a", f"b{number}"])
            assert answer.status_code == 200
            assert len(answer.json()["results"]) == 2
        for _ in range(2):
            text = server.client.get("/metrics")
            stats = server.client.get("/v1/stats")
            assert (text.status_code, stats.status_code) == (200, 200)
        assert "first_of_broken" in text.text
        assert 'tamis_requests_total{dialect="native",status="200"} 10.0' in text.text
        assert stats.json()["relevance"] is None
        assert stats.json()["requests"][0]["requests"] == 10
        assert server.metric("tamis_monitoring_errors_total", part="answer") == 10
        assert server.metric("tamis_monitoring_errors_total", part="stats") == 2
        assert server.metric("tamis_monitoring_errors_total", part="metrics") >= 4
    assert caplog.text.count("monitoring failed") == 4  # a kind, a part
