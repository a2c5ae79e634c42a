import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tamis.cascade import Cascade, merge
from tamis.errors import SettingsError

LOGITS = st.floats(-20, 20, width=32)


def array(*logits: float) -> NDArray[np.float32]:
    """Logits (n,)."""
    return np.array(logits, dtype=np.float32)


def test_the_best_of_the_first_stage_go_on_and_ties_keep_their_order() -> None:
    assert list(Cascade(3).select(array(1, 5, 1, 7, 1))) == [3, 1, 0]


def test_copies_of_a_kept_text_go_on_with_it() -> None:
    chosen = Cascade(1).select(array(1, 5, 5, 5), ["a", "b", "c", "b"])
    assert chosen.tolist() == [1, 3]


def test_a_margin_lets_those_just_below_the_last_kept_one_go_on() -> None:
    assert list(Cascade(2, margin=0.5).select(array(3, 2, 1.6, 1.4))) == [0, 1, 2]


def test_all_go_on_where_there_are_no_more_than_are_kept() -> None:
    assert sorted(Cascade(9, margin=1).select(array(1, 2))) == [0, 1]


@pytest.mark.parametrize(("keep", "margin"), [(0, 0.0), (1, -1.0), (1, float("nan"))])
def test_numbers_out_of_range_are_refused(keep: int, margin: float) -> None:
    with pytest.raises(SettingsError):
        Cascade(keep, margin)


def test_the_rest_lie_on_the_line_with_the_kept_ones_mean_and_deviation() -> None:
    logits, _ = merge(array(3, 2, 1), np.array([0, 1]), array(8, 6))

    assert logits.tolist() == [8, 6, 4]


def test_stages_that_disagree_never_let_the_rest_pass_a_kept_one() -> None:
    logits, order = merge(array(3, 2, 2, 1.9, 1), np.array([0, 1, 2]), array(5, 0, 5))

    assert order.tolist() == [0, 2, 1, 3, 4]
    assert logits[3] == logits[1] > logits[4]


@given(st.lists(st.tuples(LOGITS, LOGITS), min_size=1, max_size=30), st.integers(1, 30))
@example([(0.0, 0.0)] * 3 + [(0.0, 1.0), (0.0, -1.1754943508222875e-38), (0.0, 0.0)], 5)
def test_scores_fall_along_the_order_and_the_second_stage_stands_before_the_first(
    pairs: list[tuple[float, float]], keep: int
) -> None:
    first = array(*(pair[0] for pair in pairs))
    second = array(*(pair[1] for pair in pairs))
    kept = Cascade(keep).select(first)

    logits, order = merge(first, kept, second[kept])

    ordered = logits[order]
    assert np.isfinite(ordered).all()
    assert (np.diff(ordered) <= 0).all()
    assert sorted(order) == list(range(len(pairs)))
    assert set(order[: len(kept)]) == set(kept)
    assert (logits[kept] == second[kept]).all()
    rest = order[len(kept) :]
    assert (np.diff(first[rest]) <= 0).all()


@pytest.mark.parametrize(("keep", "margin"), [("3", 0.0), (2.5, 0.0), (True, 0.0), (3, None)])
def test_what_is_no_number_is_refused(keep: object, margin: object) -> None:
    with pytest.raises(SettingsError, match=r"cascade\.keep is a whole number"):
        Cascade(keep, margin)  # type: ignore[arg-type]  # as a caller without types
