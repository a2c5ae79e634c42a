import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.relevance.baseline import Moments
from tamis.relevance.drift import (
    KS_LINE,
    MEAN_LINE,
    PSI_LINE,
    compare,
    kolmogorov_smirnov,
    ks_line,
    mean_line,
    population_stability_index,
    psi_line,
    state_of,
)
from tests.rankings import snapshot

counts = st.lists(st.integers(0, 50), min_size=20, max_size=20).filter(any)


@given(counts, counts)
def test_psi_is_never_negative_and_0_for_equals(one: list[int], other: list[int]) -> None:
    psi, n_bins = population_stability_index(one, other)
    assert psi >= 0
    assert 1 <= n_bins <= 10
    assert population_stability_index(one, one)[0] == pytest.approx(0)


def test_psi_is_that_of_its_formula() -> None:
    # two equal parts of the baseline, found as 90 and 10 of 100, with half a count more in each
    p, q = np.array([0.5, 0.5]), np.array([90.5, 10.5]) / 101
    expected = float(((q - p) * np.log(q / p)).sum())
    psi, n_bins = population_stability_index([50, 50], [90, 10])
    assert n_bins == 2
    assert psi == pytest.approx(expected)


def test_psis_bins_hold_equal_parts_of_the_baseline() -> None:
    even = population_stability_index([7] * 100, [7] * 100)
    assert even[1] == 10
    heap = population_stability_index([1000, 0, 0, 1], [1, 0, 0, 1000])
    assert heap[1] == 2
    assert heap[0] > 5


@given(counts, counts)
def test_ks_is_the_largest_distance_of_the_distribution_functions(
    one: list[int], other: list[int]
) -> None:
    found = kolmogorov_smirnov(one, other)
    brute = max(
        abs(sum(one[: i + 1]) / sum(one) - sum(other[: i + 1]) / sum(other)) for i in range(20)
    )
    assert found == pytest.approx(brute)
    assert found == pytest.approx(kolmogorov_smirnov(other, one))
    assert 0 <= found <= 1 + 1e-9


def test_lines_are_the_usual_ones_for_large_samples_and_wider_for_small_ones() -> None:
    assert psi_line(10, 1e6, 1e6) == PSI_LINE
    assert psi_line(10, 500, 500) == PSI_LINE
    assert psi_line(10, 100, 100) == pytest.approx(0.95, abs=0.1)
    assert ks_line(1e6, 1e6) == KS_LINE
    assert ks_line(500, 500) == pytest.approx(0.17, abs=0.005)
    assert mean_line(Moments(500, 0.5, 0.25), Moments(500, 0.5, 0.25), MEAN_LINE) == pytest.approx(
        0.155, abs=0.001
    )
    assert mean_line(Moments(500, 0.5, 0.0), Moments(500, 0.5, 0.0), MEAN_LINE) == MEAN_LINE


def test_samples_of_one_distribution_stay_within_the_lines() -> None:
    baseline = snapshot(500, seed=0)
    shares = [
        verdict.distance / verdict.line
        for seed in range(1, 21)
        for verdict in compare(baseline, snapshot(500, seed=seed))
    ]
    assert len(shares) >= 20 * 8
    assert max(shares) < 1


def test_a_shifted_distribution_is_beyond_them() -> None:
    verdicts = compare(snapshot(500, seed=0), snapshot(500, seed=1, shift=-1.5))
    crossed = {verdict.signal for verdict in verdicts if verdict.crossed}
    assert {"top_psi", "all_psi", "top_ks", "all_ks", "nothing_relevant"} <= crossed
    assert not crossed & {"retention", "kendall_tau", "tokens", "truncation"}


def test_too_few_requests_are_waited_for() -> None:
    few, many = snapshot(99, seed=0), snapshot(100, seed=1)
    assert compare(few, many) == compare(many, few) == []
    assert state_of(many, []) == "waiting"
    assert state_of(None, []) == "none"
    verdicts = compare(many, many)
    assert state_of(many, verdicts) == "ok"
    alert = [msgspec.structs.replace(verdicts[0], crossed=True), *verdicts[1:]]
    assert state_of(many, alert) == "alert"


def test_another_threshold_is_no_drift() -> None:
    one = snapshot(200, seed=0)
    other = msgspec.structs.replace(one, threshold=0.9)
    assert "nothing_relevant" in {verdict.signal for verdict in compare(one, one)}
    assert "nothing_relevant" not in {verdict.signal for verdict in compare(one, other)}


def test_a_signal_that_one_of_them_lacks_is_left_out() -> None:
    alone = snapshot(200, seed=0, n_documents=1)
    assert {verdict.signal for verdict in compare(alone, snapshot(200, seed=1))} == {
        *("top_psi", "top_ks", "all_psi", "all_ks", "nothing_relevant", "truncation", "tokens"),
    }
