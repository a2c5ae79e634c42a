from tamis.relevance.monitor import RelevanceMonitor
from tamis.relevance.watch import RelevanceWatch
from tamis.settings import RelevanceSettings
from tamis.types import RankedDocument, RerankRequest, RerankResult, Usage

TEXTS = ("a", "b", "c")


def watch_of(
    *, order: tuple[int, ...], logits: tuple[float, ...], degraded: bool = False
) -> RelevanceMonitor:
    """What has seen one answer, in this order."""
    monitor = RelevanceMonitor(RelevanceSettings())
    results = tuple(RankedDocument(index, TEXTS[index], logits[index], 0.5) for index in order)
    usage = Usage(n_pairs=3, n_tokens=30, n_truncated=0, n_cached=0)
    RelevanceWatch(monitor, None).answered(
        RerankRequest("q", TEXTS),
        RerankResult("m", results, usage, logits, degraded=degraded),
        dialect="native",
        caller="",
        request_id="r",
    )
    return monitor


def test_an_answer_that_a_cascades_second_stage_had_no_time_for_is_a_part() -> None:
    monitor = watch_of(order=(0, 1, 2), logits=(3.0, 2.0, 1.0), degraded=True)
    (series,) = monitor.series
    assert (series.counts["partial_requests"], series.counts["requests"]) == (1, 0)
    assert series.histograms["score"].n == 0
    assert list(monitor.snapshots()) == []
    assert monitor.feedback.record("", "r", [1], "used") == 1


def test_where_logits_are_equal_the_answers_order_counts() -> None:
    # as in a cascade, whose second stage's last stands before the first stage's best
    monitor = watch_of(order=(1, 0, 2), logits=(2.0, 2.0, 1.0))
    monitor.feedback.record("", "r", [1], "clicked")
    (series,) = monitor.series
    assert series.feedback["clicked"].ranks.total == 1
    assert series.counts["retained_requests"] == 0


def test_what_is_not_shown_follows_in_its_own_order() -> None:
    monitor = watch_of(order=(1,), logits=(2.0, 2.0, 2.0))
    monitor.feedback.record("", "r", [2], "clicked")
    (series,) = monitor.series
    assert series.feedback["clicked"].ranks.total == 3
