import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.ranking import BLANK_LOGIT, has_words, rank, sigmoid

FLOATS = st.floats(-50, 50, width=32)


def test_the_best_document_comes_first() -> None:
    places = rank(np.array([-1.5, 3.0, 0.25], dtype=np.float32))

    assert [index for index, _ in places] == [1, 2, 0]
    assert [score for _, score in places] == sigmoid(
        np.array([3.0, 0.25, -1.5], np.float32)
    ).tolist()


def test_equal_logits_keep_the_order_they_were_given_in() -> None:
    places = rank(np.array([1, 2, 1, 2, 1], dtype=np.float32))

    assert [index for index, _ in places] == [1, 3, 0, 2, 4]


@pytest.mark.parametrize(("top_n", "expected"), [(None, 3), (0, 0), (2, 2), (3, 3), (99, 3)])
def test_top_n_bounds_how_many_come_back(top_n: int | None, expected: int) -> None:
    assert len(rank(np.array([1, 2, 3], dtype=np.float32), top_n=top_n)) == expected


def test_the_threshold_bounds_the_score_and_not_the_logit() -> None:
    logits = np.array([-1.0, 0.0, 1.0], dtype=np.float32)

    assert [index for index, _ in rank(logits, threshold=0.5)] == [2, 1]
    assert rank(logits, threshold=0.8) == []


def test_top_n_counts_what_the_threshold_leaves() -> None:
    places = rank(np.array([3, 2, -5], dtype=np.float32), top_n=3, threshold=0.5)

    assert [index for index, _ in places] == [0, 1]


def test_no_documents_give_no_places() -> None:
    assert rank(np.empty(0, dtype=np.float32)) == []


@pytest.mark.parametrize("logit", [-800.0, -20.0, -8.1875, 0.0, 0.5, 5.26171875, 20.0, 800.0])
def test_the_score_is_the_sigmoid_of_the_logit(logit: float) -> None:
    expected = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0

    assert sigmoid(np.array([logit], dtype=np.float32))[0] == pytest.approx(expected, rel=1e-12)


def test_large_logits_keep_their_order_as_scores() -> None:
    scores = sigmoid(np.array([17.0, 18.0, 30.0], dtype=np.float32))

    assert scores[0] < scores[1] < scores[2] < 1


@given(st.lists(FLOATS, max_size=30), st.none() | st.integers(0, 40), st.none() | st.floats(0, 1))
def test_what_comes_back_is_the_head_of_the_sorted_and_filtered_list(
    values: list[float], top_n: int | None, threshold: float | None
) -> None:
    logits = np.array(values, dtype=np.float32)
    scores = sigmoid(logits)

    order = sorted(range(len(values)), key=lambda i: (-logits[i], i))
    kept = [i for i in order if threshold is None or scores[i] >= threshold]

    assert [index for index, _ in rank(logits, top_n=top_n, threshold=threshold)] == kept[:top_n]


@pytest.mark.parametrize("text", ["a", "7", "，是", "٣", "½", "я.", "ไ", "_x_", "e\u0301"])
def test_a_letter_or_digit_of_any_script_is_a_word(text: str) -> None:
    assert has_words(text)


@pytest.mark.parametrize(
    "text", ["", " \t\n", ".", "…。！", "\u200b\ufeff", "___", "|---|", "\u3000"]
)
def test_a_text_without_letters_and_digits_has_no_words(text: str) -> None:
    assert not has_words(text)


def test_a_blank_document_is_below_a_threshold_of_zero() -> None:
    logits = np.array([BLANK_LOGIT, -30.0], dtype=np.float32)
    assert [index for index, _ in rank(logits, threshold=0.0)] == [1]
    assert [index for index, _ in rank(logits)] == [1, 0]


def test_a_document_without_a_logit_has_no_place() -> None:
    assert [index for index, _ in rank(np.array([1, np.nan, 2], dtype=np.float32))] == [2, 0]
