import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.relevance.histogram import (
    LOGIT_EDGES,
    SCORE_EDGES,
    Histogram,
    logit_bins,
)

values = st.lists(st.floats(-0.5, 1.5), max_size=30)


@given(values)
def test_values_counted_together_or_one_by_one_are_the_same(given_values: list[float]) -> None:
    together, apart = Histogram(SCORE_EDGES), Histogram(SCORE_EDGES)
    together.add_all(np.array(given_values))
    for value in given_values:
        apart.add(value)
    assert together.counts.tolist() == apart.counts.tolist()
    assert together.total == pytest.approx(apart.total)
    assert together.n == len(given_values)


def test_a_value_on_an_edge_is_in_the_bin_that_ends_there() -> None:
    histogram = Histogram((0.0, 1.0))
    histogram.add(1.0)
    assert histogram.cumulative() == [("0.0", 0.0), ("1.0", 1.0), ("+Inf", 1.0)]


def test_the_mean_is_of_the_values_and_not_of_the_bins() -> None:
    histogram = Histogram((1.0,))
    assert histogram.mean is None
    histogram.add_all(np.array([0.2, 0.6]))
    assert histogram.mean == pytest.approx(0.4)


def test_one_histogram_includes_another() -> None:
    one, other = Histogram((1.0,)), Histogram((1.0,))
    one.add(0.5)
    other.add(3.0)
    one.include(other)
    assert (one.counts.tolist(), one.total) == ([1, 1], 3.5)


@given(st.lists(st.floats(-40, 40), max_size=30))
def test_every_logit_has_a_bin(logits: list[float]) -> None:
    assert logit_bins(np.array(logits)).sum() == len(logits)


def test_logit_bins_are_a_quarter_wide_from_minus_16_to_16() -> None:
    assert (LOGIT_EDGES[0], LOGIT_EDGES[1], LOGIT_EDGES[-1]) == (-16.0, -15.75, 16.0)
    assert logit_bins(np.array([-20.0, 0.1, 20.0])).nonzero()[0].tolist() == [0, 65, 129]
