from tamis.relevance.series import (
    Labels,
    Series,
    SeriesTable,
    together,
    without_callers,
)
from tamis.relevance.signals import read
from tests.rankings import ranking


def labels(caller: str) -> Labels:
    return Labels("m", "native", caller)


def counted(*logits: list[float], caller: str = "", n_shown: int | None = None) -> Series:
    series = Series(labels(caller))
    for one in logits:
        answer = ranking(one, n_shown=n_shown, n_truncated=1)
        series.add(answer, read(answer), threshold=0.5)
    return series


def test_one_document_counts_for_scores_and_not_for_the_order() -> None:
    series = counted([2.0])
    assert series.counts["requests"] == 1
    assert series.counts["compared_requests"] == 0
    assert series.counts["retained_requests"] == 0
    assert series.histograms["top_score"].n == 1
    assert series.histograms["kendall_tau"].n == 0
    assert series.histograms["margin_logits"].n == 0


def test_a_first_document_that_stays_first_is_retained() -> None:
    series = counted([2.0, 1.0], [1.0, 2.0], [3.0, 0.0])
    assert (series.counts["compared_requests"], series.counts["retained_requests"]) == (3, 2)


def test_nothing_is_relevant_where_the_best_score_is_below_the_threshold() -> None:
    series = counted([-0.1, -3.0], [0.1, -3.0])
    assert series.counts["nothing_relevant_requests"] == 1


def test_a_part_of_an_answer_counts_what_it_cost_and_no_more() -> None:
    series = counted([2.0, float("nan")])
    assert series.counts["partial_requests"] == 1
    assert series.counts["requests"] == 0
    assert (series.counts["documents"], series.counts["tokens"]) == (2, 20)
    assert series.counts["truncated_documents"] == 1
    assert all(histogram.n == 0 for histogram in series.histograms.values())


def test_an_answer_that_shows_nothing_is_counted() -> None:
    assert counted([1.0], n_shown=0).counts["empty_requests"] == 1


def test_an_answer_without_any_score_is_no_empty_one() -> None:
    counts = counted([float("nan")], n_shown=0).counts
    assert (counts["empty_requests"], counts["partial_requests"]) == (0, 1)


def test_beyond_the_bound_callers_share_one_series() -> None:
    table = SeriesTable(2)
    first, second = table.of(labels("a")), table.of(labels("b"))
    assert first is not second
    assert list(table) == [first, second]
    assert table.of(labels("c")) is table.of(labels("d")) is table.other
    assert table.of(labels("a")) is first
    assert list(table) == [first, second, table.other]


def test_callers_can_be_added_up() -> None:
    every = [counted([1.0, 0.0], caller="a"), counted([0.0, 1.0], [2.0, 0.0], caller="b")]
    every[1].feedback["used"].ranks.add(1)
    (whole,) = without_callers(every)
    for one in (whole, together(every)):
        assert one.counts["requests"] == 3
        assert one.counts["retained_requests"] == 2
        assert one.histograms["score"].n == 6
        assert one.feedback["used"].ranks.n == 1
    assert (whole.labels.dialect, whole.labels.caller) == ("native", "")
