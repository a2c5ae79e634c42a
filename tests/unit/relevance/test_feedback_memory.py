import numpy as np
import pytest

from tamis.errors import InvalidFieldError, UnknownRequestError
from tamis.relevance.feedback_memory import FeedbackMemory
from tamis.relevance.series import Labels, Series


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def series() -> Series:
    return Series(Labels("m", "native", ""))


def remembered(
    memory: FeedbackMemory, caller: str = "", request_id: str = "r", ranks: tuple[int, ...] = (2, 1)
) -> Series:
    own = series()
    memory.remember(caller, request_id, np.array(ranks, dtype=np.uint8), own)
    return own


def test_feedback_counts_the_rank_in_the_answer_and_the_one_given() -> None:
    memory = FeedbackMemory(10, 60)
    own = remembered(memory, ranks=(3, 1, 2))
    assert memory.record("", "r", [0], "clicked") == 1
    counts = own.feedback["clicked"]
    assert counts.ranks.total == 3
    assert counts.given_ranks.total == 1
    assert counts.reciprocal_ranks.total == pytest.approx(1 / 3)
    assert own.feedback["used"].ranks.n == 0


def test_only_the_first_feedback_counts_for_the_reciprocal_rank() -> None:
    memory = FeedbackMemory(10, 60)
    own = remembered(memory, ranks=(3, 1, 2, 4))
    memory.record("", "r", [0, 2], "used")
    memory.record("", "r", [1], "used")
    counts = own.feedback["used"]
    assert counts.ranks.n == 3
    assert (counts.reciprocal_ranks.n, counts.reciprocal_ranks.total) == (1, 0.5)


def test_the_same_said_twice_counts_once() -> None:
    memory = FeedbackMemory(10, 60)
    own = remembered(memory)
    assert memory.record("", "r", [1, 1], "used") == 1
    assert memory.record("", "r", [1], "used") == 0
    assert memory.record("", "r", [1], "clicked") == 1
    assert own.feedback["used"].ranks.n == 1


@pytest.mark.parametrize(("caller", "request_id"), [("", "other"), ("b", "r")])
def test_what_the_caller_was_not_answered_is_unknown(caller: str, request_id: str) -> None:
    memory = FeedbackMemory(10, 60)
    remembered(memory, caller="a")
    with pytest.raises(UnknownRequestError):
        memory.record(caller, request_id, [0], "used")


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_out_of_range_counts_nothing_of_the_list(index: int) -> None:
    memory = FeedbackMemory(10, 60)
    own = remembered(memory)
    with pytest.raises(InvalidFieldError, match="the request did not have; it had 2"):
        memory.record("", "r", [0, index], "used")
    assert own.feedback["used"].ranks.n == 0


def test_a_list_longer_than_the_answer_is_refused_unread() -> None:
    memory = FeedbackMemory(10, 60)
    remembered(memory)
    with pytest.raises(InvalidFieldError, match="more documents than the request had; it had 2"):
        memory.record("", "r", [0, 0, 0], "used")


def test_of_a_callers_answers_with_one_id_the_newest_counts() -> None:
    memory = FeedbackMemory(10, 60)
    old = remembered(memory, caller="a", ranks=(1, 2))
    other = remembered(memory, caller="b", ranks=(1, 2))
    new = remembered(memory, caller="a", ranks=(2, 1))
    memory.record("a", "r", [0], "used")
    assert [one.feedback["used"].ranks.total for one in (old, other, new)] == [0, 0, 2]
    assert len(memory) == 2


def test_ranks_of_many_documents_are_kept_whole() -> None:
    memory, own = FeedbackMemory(10, 60), series()
    memory.remember("", "r", np.arange(1, 1001, dtype=np.uint16)[::-1], own)
    memory.record("", "r", [0, 300, 999], "clicked")
    assert own.feedback["clicked"].ranks.total == 1000 + 700 + 1


def test_the_oldest_answers_are_forgotten_first() -> None:
    memory = FeedbackMemory(2, 60)
    for request_id in ("a", "b", "c"):
        remembered(memory, request_id=request_id)
    with pytest.raises(UnknownRequestError):
        memory.record("", "a", [0], "used")
    assert memory.record("", "b", [0], "used") == 1


def test_many_documents_take_no_more_room_than_there_is() -> None:
    memory = FeedbackMemory(100, 60, max_ranks=10)
    for number in range(20):
        remembered(memory, request_id=str(number), ranks=(1, 2, 3))
    assert len(memory) == 3
    remembered(memory, request_id="large", ranks=tuple(range(1, 12)))
    assert len(memory) == 0


def test_an_answer_is_forgotten_in_time() -> None:
    clock = Clock()
    memory = FeedbackMemory(10, 60, clock=clock)
    remembered(memory)
    clock.now = 60
    assert memory.record("", "r", [0], "used") == 1
    clock.now = 60.1
    with pytest.raises(UnknownRequestError):
        memory.record("", "r", [1], "used")
