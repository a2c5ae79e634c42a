from pathlib import Path

import msgspec
import pytest

from tamis.relevance.baseline import baseline_of, write_baseline
from tamis.relevance.monitor import RelevanceMonitor
from tamis.relevance.series import MAX_SERIES, SeriesTable
from tamis.relevance.summary import report
from tamis.settings import RelevanceSettings
from tests.rankings import ranking, snapshot


def monitor_of_two(max_series: int = MAX_SERIES) -> RelevanceMonitor:
    monitor = RelevanceMonitor(RelevanceSettings())
    monitor.series = SeriesTable(max_series)
    monitor.observe(ranking([2.0, 1.0], caller="a", request_id="r"))
    monitor.observe(ranking([0.0, 1.0], caller="b", n_truncated=1))
    monitor.feedback.record("a", "r", [1], "clicked")
    return monitor


def test_a_caller_sees_its_own_series_and_the_whole() -> None:
    found = report(monitor_of_two(), threshold=0.5, caller="a")
    assert [series.caller for series in found.series] == ["a"]
    assert found.together.counts["requests"] == 2
    assert (found.together.retention, found.series[0].retention) == (0.5, 1)
    assert (found.together.truncation, found.series[0].truncation) == (0.25, 0)


def test_without_keys_everything_is_there() -> None:
    found = report(monitor_of_two(max_series=1), threshold=0.5, caller=None)
    assert [series.caller for series in found.series] == ["a", "other"]


def test_who_has_no_series_of_its_own_does_not_get_the_others() -> None:
    monitor = monitor_of_two(max_series=1)
    for caller in ("b", "other"):
        assert report(monitor, threshold=0.5, caller=caller).series == []


def test_feedback_is_in_shares() -> None:
    (own,) = report(monitor_of_two(), threshold=0.5, caller="a").series
    clicked = next(one for one in own.feedback if one.event == "clicked")
    assert (clicked.documents, clicked.mean_reciprocal_rank) == (1, 0.5)
    assert (clicked.first_share, clicked.first_share_given) == (0, 0)
    used = next(one for one in own.feedback if one.event == "used")
    assert (used.documents, used.first_share, used.mean_reciprocal_rank) == (0, None, None)


def test_histograms_have_an_end_for_each_bin_but_the_last() -> None:
    found = report(monitor_of_two(), threshold=0.5, caller=None)
    for histogram in found.together.histograms.values():
        assert len(histogram.counts) == len(histogram.edges) + 1
    assert sum(found.together.histograms["score"].counts) == 4


@pytest.mark.parametrize("n", [0, 120])
def test_it_is_json_before_the_first_answer_and_after_many(n: int, tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    write_baseline(file, baseline_of(snapshot(200, seed=0)))
    monitor = RelevanceMonitor(RelevanceSettings(baseline=file))
    for _ in range(n):
        monitor.observe(ranking())
    found = msgspec.json.decode(
        msgspec.json.encode(report(monitor, threshold=0.5, caller=None)), type=dict[str, object]
    )
    assert found["baseline"] is not None
    assert len(str(found["drift"])) > 100 or n == 0
