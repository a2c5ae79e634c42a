import logging
import math
from pathlib import Path

import numpy as np
import pytest

from tamis.errors import SettingsError, UnknownRequestError
from tamis.relevance.baseline import baseline_of, write_baseline
from tamis.relevance.monitor import RelevanceMonitor
from tamis.settings import RelevanceSettings
from tests.rankings import ranking, snapshot


def settings(**options: object) -> RelevanceSettings:
    return RelevanceSettings.model_validate(options)


def test_each_model_has_a_window_of_its_own() -> None:
    monitor = RelevanceMonitor(settings())
    for model in ("a", "b", "a"):
        monitor.observe(ranking(model=model))
    assert {one.model: one.n_requests for one in monitor.snapshots()} == {"a": 2, "b": 1}
    assert [drift.state for drift in monitor.drifts()] == ["none", "none"]


def test_an_answer_with_a_request_id_takes_feedback() -> None:
    monitor = RelevanceMonitor(settings())
    monitor.observe(ranking([0.0, 2.0], caller="web", request_id="r"))
    monitor.feedback.record("web", "r", [1], "clicked")
    (series,) = monitor.series
    assert series.feedback["clicked"].ranks.total == 1
    assert series.feedback["clicked"].given_ranks.total == 2


def test_so_does_a_part_of_one() -> None:
    monitor = RelevanceMonitor(settings())
    monitor.observe(ranking([math.nan, 2.0, 3.0], request_id="r"))
    monitor.feedback.record("", "r", [0, 2], "used")
    (series,) = monitor.series
    assert series.feedback["used"].ranks.total == 3 + 1
    assert list(monitor.snapshots()) == []


def test_nothing_is_remembered_where_no_feedback_is_wanted() -> None:
    monitor = RelevanceMonitor(settings(feedback_requests=0))
    monitor.observe(ranking(request_id="r"))
    with pytest.raises(UnknownRequestError):
        monitor.feedback.record("", "r", [0], "used")


def test_a_baseline_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        RelevanceMonitor(settings(baseline=tmp_path / "none.json"))


def test_an_alert_is_logged_when_it_comes_and_when_it_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "b.json"
    write_baseline(file, baseline_of(snapshot(200, seed=0, n_documents=1)))
    monitor = RelevanceMonitor(settings(window=100, baseline=file))

    def feed(logit: float, n: int) -> None:
        for number in range(n):
            monitor.observe(ranking([logit + math.sin(number)]))

    feed(9.0, 50)
    assert [drift.state for drift in monitor.drifts()] == ["waiting"]
    feed(9.0, 100)
    (drift,) = monitor.drifts()
    assert drift.state == "alert"
    assert "top_ks" in drift.crossed
    assert len(caplog.records) == 1
    assert "top_ks" in caplog.text
    caplog.clear()
    rng = np.random.default_rng(5)
    for logit in rng.normal(size=150) * 2:
        monitor.observe(ranking([float(logit)]))
    assert next(iter(monitor.drifts())).state == "ok"
    assert caplog.messages[-1] == "the ranking matches its baseline again"
