from pathlib import Path

import msgspec
import numpy as np
import pytest

from tamis.engine.calibration import (
    LEAST_QUERIES,
    CalibrationReport,
    QueryScores,
    compare,
    kendall_tau,
    ndcg,
    read_report,
    write_report,
)
from tamis.engine.pairs import Logits
from tamis.errors import ModelError


def logits(*values: float) -> Logits:
    return np.array(values, dtype=np.float32)


PASSING = CalibrationReport(
    max_length=512,
    processor="one",
    n_queries=LEAST_QUERIES,
    n_pairs=4000,
    logit_difference_max=0.1,
    logit_difference_rms=0.01,
    logit_std=2.0,
    tau=0.98,
    tau_lowest_decile=0.9,
    same_top_1=1.0,
    n_top_5_queries=LEAST_QUERIES,
    same_top_5=0.95,
    n_judged_queries=200,
    ndcg_float32=0.700,
    ndcg_int8=0.696,
)


def test_a_report_at_every_bound_passes() -> None:
    assert PASSING.shortcomings == []
    assert PASSING.verdict.startswith("passes: tau 0.980")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n_top_5_queries": 199}, "199 of 200 queries have more than 5 candidates"),
        ({"n_top_5_queries": 0, "same_top_5": None}, "0 of 200 queries"),
        ({"tau": 0.9799}, "tau 0.980, at least 0.98"),
        ({"same_top_5": 0.949}, "top 5 for 94.9%"),
        ({"ndcg_int8": 0.694}, "nDCG@10 -0.0060"),
        ({"ndcg_int8": 0.706}, "nDCG@10 +0.0060"),
        ({"ndcg_int8": None}, "not known"),
    ],
    ids=str,
)
def test_each_bound_fails_a_report_on_its_own(change: dict[str, object], reason: str) -> None:
    report = msgspec.structs.replace(PASSING, **change)
    assert len(report.shortcomings) == 1
    assert reason in report.verdict
    assert report.verdict.startswith("fails: ")


def test_tau_is_one_for_the_same_order_and_minus_one_for_its_reverse() -> None:
    assert kendall_tau(logits(3, 2, 1), logits(30, 0, -5)) == 1
    assert kendall_tau(logits(3, 2, 1), logits(1, 2, 3)) == -1


def test_tau_counts_ties_as_tau_b() -> None:
    # 3 document pairs: 2 agree, 1 is tied in the second scoring; tau-b = 2 / sqrt(3 * 2)
    assert kendall_tau(logits(3, 2, 1), logits(3, 1, 1)) == pytest.approx(2 / np.sqrt(6))


def test_tau_of_scorings_that_tell_nothing_apart() -> None:
    assert kendall_tau(logits(1), logits(2)) == 1
    assert kendall_tau(logits(1, 1), logits(2, 2)) == 1
    assert kendall_tau(logits(1, 1), logits(2, 3)) == 0


def test_ndcg_of_a_worked_example() -> None:
    # order found: grades 0, 2, 1; gain 2/log2(3) + 1/log2(4), ideal 2/log2(2) + 1/log2(3)
    found = ndcg([2, 1, 0], logits(0.5, 0.1, 0.9))
    assert found == pytest.approx((2 / np.log2(3) + 0.5) / (2 + 1 / np.log2(3)))


def test_ndcg_looks_at_the_first_ten() -> None:
    grades = [0.0] * 10 + [1.0]
    assert ndcg(grades, logits(*range(11, 0, -1))) == 0
    assert ndcg(grades, logits(*range(11))) == 1


def report_of(*queries: QueryScores) -> CalibrationReport:
    return compare(queries, max_length=512, processor="one")


def test_a_report_of_two_queries() -> None:
    report = report_of(
        QueryScores(logits(3, 2, 1), logits(3.5, 2, 1), [1, 0, 0]),
        QueryScores(logits(1, 2), logits(2, 1)),
    )
    assert (report.n_queries, report.n_pairs, report.n_judged_queries) == (2, 5, 1)
    assert report.logit_difference_max == 1
    assert report.logit_difference_rms == pytest.approx(np.sqrt((0.25 + 1 + 1) / 5))
    assert report.tau == 0
    assert (report.same_top_1, report.same_top_5) == (0.5, None)
    assert (report.ndcg_float32, report.ndcg_int8) == (1.0, 1.0)


def test_five_candidates_or_fewer_say_nothing_of_the_top_5() -> None:
    five, six = logits(5, 4, 3, 2, 1), logits(6, 5, 4, 3, 2, 1)
    moved = report_of(QueryScores(five, five[::-1]), QueryScores(six, six[::-1]))
    assert (moved.n_queries, moved.n_top_5_queries, moved.same_top_5) == (2, 1, 0.0)
    report = report_of(QueryScores(five, five[::-1]))
    assert (report.n_top_5_queries, report.same_top_5) == (0, None)
    assert "0 of 1 queries have more than 5 candidates, at least 200" in report.verdict


def test_queries_without_a_relevant_document_do_not_count_as_judged() -> None:
    report = report_of(QueryScores(logits(3, 2), logits(3, 2), [0, 0]))
    assert report.n_judged_queries == 0
    assert report.ndcg_int8 is None


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    write_report(tmp_path, PASSING)
    assert read_report(tmp_path) == PASSING
    assert [path.name for path in tmp_path.iterdir()] == ["tamis-calibration.json"]


def test_a_spoilt_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tamis-calibration.json").write_text('{"tau": 1}')
    with pytest.raises(ModelError, match="tamis-calibration"):
        read_report(tmp_path)
