import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.relevance.signals import (
    against_given,
    n_inversions,
    ranks_by_index,
    read,
)
from tests.rankings import ranking

permutations = st.integers(0, 40).flatmap(lambda n: st.permutations(range(n)))


@given(permutations)
def test_inversions_are_those_a_brute_force_finds(order: list[int]) -> None:
    n = len(order)
    brute = sum(order[i] > order[j] for i in range(n) for j in range(i + 1, n))
    assert n_inversions(np.array(order, dtype=np.intp)) == brute


@given(st.permutations(range(12)))
def test_the_order_signals_are_those_of_their_definitions(order: list[int]) -> None:
    found = against_given(np.array(order))
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    agreeing = sum(1 if order.index(i) < order.index(j) else -1 for i, j in pairs)
    assert found.kendall_tau == pytest.approx(agreeing / len(pairs))
    assert found.retained == (order[0] == 0)
    assert found.top_overlap == len(set(order[:5]) & set(range(5))) / 5
    assert found.displacement == pytest.approx(
        sum(abs(place - document) for place, document in enumerate(order)) / 12
    )


def test_the_order_given_kept_and_turned_round_are_the_ends() -> None:
    kept, turned = against_given(np.arange(9)), against_given(np.arange(9)[::-1])
    assert (kept.kendall_tau, kept.retained, kept.displacement) == (1, True, 0)
    assert (turned.kendall_tau, turned.retained) == (-1, False)


def test_five_documents_or_fewer_have_no_overlap_to_speak_of() -> None:
    assert against_given(np.arange(5)[::-1]).top_overlap is None
    assert against_given(np.arange(6)[::-1]).top_overlap == 0.8


def test_a_ranking_is_read() -> None:
    found = read(ranking([0.5, 3.0, -2.0], n_truncated=1, n_tokens=60))
    assert found is not None
    assert found.order.tolist() == [1, 0, 2]
    assert (found.best_logit, found.margin) == (3.0, 2.5)
    assert found.best_score == pytest.approx(1 / (1 + math.exp(-3)))
    assert (found.truncation, found.tokens) == (pytest.approx(1 / 3), 20)


def test_equal_logits_keep_the_order_given() -> None:
    found = read(ranking([1.0] * 7))
    assert found is not None
    assert found.order.tolist() == list(range(7))
    assert found.margin == 0


def test_one_document_has_no_order_and_no_margin() -> None:
    found = read(ranking([4.0]))
    assert found is not None
    assert (found.against_given, found.margin) == (None, None)


@pytest.mark.parametrize("logits", [[], [math.nan], [1.0, math.nan], [math.inf, 0.0]])
def test_a_part_of_an_answer_says_nothing_of_the_ranking(logits: list[float]) -> None:
    assert read(ranking(logits)) is None


def test_ranks_of_documents_without_a_score_follow_in_the_order_given() -> None:
    assert ranks_by_index(np.array([4, 1]), 5).tolist() == [3, 2, 4, 5, 1]
    assert ranks_by_index(np.arange(300), 300).dtype == np.uint16
    assert ranks_by_index(np.arange(200), 200).dtype == np.uint8


def test_reading_sixteen_times_the_documents_takes_far_less_than_their_square() -> None:
    rng = np.random.default_rng(0)

    def fastest(n: int) -> float:
        large = ranking(rng.normal(size=n).tolist())
        clock = [time.perf_counter()]
        for _ in range(30):
            read(large)
            clock.append(time.perf_counter())
        return min(after - before for before, after in pairwise(clock))

    assert fastest(16_000) < 60 * fastest(1000)  # n log n is 22 times, n squared 256
