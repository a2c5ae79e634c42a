import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tamis.cache.read_through import ReadThrough
from tamis.cache.scores import ScoreCache
from tamis.errors import DeadlineExceededError, InferenceError, UnscorableDocumentError
from tamis.types import CacheUse, PairScore
from tests.unit.cache.doubles import DictStore, Tally

A, B, C = (letter * 48 for letter in (b"a", b"b", b"c"))
KEYS = [A, B, C]
NEVER = float("inf")


def score(position: int, *, truncated: bool) -> PairScore:
    return PairScore(float(position), position + 1, truncated)


class Model:
    """Scores positions, after what a test puts in its way."""

    def __init__(self, before: Callable[[], object] | None = None) -> None:
        self.asked: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.bad: dict[int, UnscorableDocumentError] = {}
        self.cuts = False

    async def compute(self, positions: list[int]) -> dict[int, PairScore]:
        self.asked.append(positions)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        scores = {position: score(position, truncated=self.cuts) for position in positions}
        bad = self.bad.keys() & positions
        return scores | {position: PairScore.failed(self.bad[position]) for position in bad}


async def scores_of(
    through: ReadThrough,
    keys: Sequence[bytes],
    model: Model,
    *,
    deadline: float = NEVER,
    priority: int = 0,
    use: CacheUse = "normal",
    uncut: bool = False,
    keep: Callable[[], bool] = lambda: True,
) -> list[PairScore]:
    """What became of each pair, those at missing positions scored by a model."""
    with through.look_up(
        dict(enumerate(keys)), deadline=deadline, priority=priority, use=use, uncut=uncut
    ) as looked_up:
        while missing := await looked_up.missing():
            await looked_up.settle(await model.compute(missing), keep=keep())
    return [
        replace(one, cached=position not in looked_up.computed)
        for position, one in looked_up.scores.items()
    ]


def logits(answers: list[PairScore]) -> list[float]:
    assert all(one.has_logit for one in answers)
    return [one.logit for one in answers]


@pytest.fixture
def store() -> DictStore:
    return DictStore()


@pytest.fixture
def through(store: DictStore) -> ReadThrough:
    return ReadThrough(ScoreCache([store], secret=b"s"))


async def test_only_what_is_not_kept_is_computed(through: ReadThrough) -> None:
    model = Model()
    await scores_of(through, [A, C], model)

    answers = await scores_of(through, KEYS, model)

    assert model.asked == [[0, 1], [1]]
    assert logits(answers) == [0.0, 1.0, 1.0]  # C was at position 1 when it was computed
    assert [one.cached for one in answers] == [True, False, True]


async def test_equal_pairs_of_a_request_are_computed_once(through: ReadThrough) -> None:
    model = Model()

    answers = await scores_of(through, [A, B, A, A], model)

    assert model.asked == [[0, 1]]
    assert logits(answers) == [0.0, 1.0, 0.0, 0.0]
    assert [one.cached for one in answers] == [False, False, True, True]


async def test_equal_pairs_of_many_requests_at_once_are_computed_once(
    through: ReadThrough,
) -> None:
    model = Model()
    model.gate.clear()
    requests = [asyncio.create_task(scores_of(through, [A], model)) for _ in range(100)]
    await until(lambda: bool(model.asked))

    model.gate.set()
    answers = await asyncio.gather(*requests)

    assert model.asked == [[0]]
    assert [logits(one) for one in answers] == [[0.0]] * 100
    assert sum(one[0].cached for one in answers) == 99


async def test_two_requests_that_share_some_pairs_wait_for_each_other_only_there(
    through: ReadThrough,
) -> None:
    model, tally = Model(), Tally()
    through = ReadThrough(ScoreCache([], secret=b"s", observer=tally))
    model.gate.clear()
    first = asyncio.create_task(scores_of(through, [A, B], model))
    await until(lambda: len(model.asked) == 1)
    second = asyncio.create_task(scores_of(through, [C, B], model))
    await until(lambda: len(model.asked) == 2)

    model.gate.set()

    assert logits(await first) == [0.0, 1.0]
    assert logits(await second) == [0.0, 1.0]
    assert model.asked == [[0, 1], [0]]
    assert tally.n_waited == 1


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "fails"])
async def test_who_waits_for_one_that_fails_or_leaves_computes_itself(
    through: ReadThrough, leaves: bool
) -> None:
    model = Model()
    model.gate.clear()
    owner = asyncio.create_task(scores_of(through, [A], model))
    await until(lambda: len(model.asked) == 1)
    waiting = [asyncio.create_task(scores_of(through, [A], model)) for _ in range(5)]
    await asyncio.sleep(0)

    if leaves:
        owner.cancel()
    else:
        model.error = InferenceError("broken")
        model.gate.set()
    with pytest.raises(BaseException, match="broken" if not leaves else None) as raised:
        await owner
    assert isinstance(raised.value, asyncio.CancelledError | InferenceError)
    model.error = None
    model.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(not isinstance(one, BaseException) for one in answers)
    assert len(model.asked) == 2


async def test_a_pair_that_cannot_be_scored_is_not_kept_and_fails_each_by_itself(
    through: ReadThrough, store: DictStore
) -> None:
    model = Model()
    model.bad[1] = UnscorableDocumentError("document 1 cannot be scored")

    answers = await scores_of(through, [A, B], model)

    assert answers[1].failure is model.bad[1]
    assert set(store.entries) == {A}


async def test_a_small_request_does_not_wait_for_all_of_a_larger_one(through: ReadThrough) -> None:
    large, small = Model(), Model()
    large.gate.clear()
    waiting = asyncio.create_task(scores_of(through, KEYS, large))
    await until(lambda: len(large.asked) == 1)

    answers = await asyncio.wait_for(scores_of(through, [A], small), 5)

    assert logits(answers) == [0.0]
    assert small.asked == [[0]]
    large.gate.set()
    assert logits(await waiting) == [0.0, 1.0, 2.0]


async def test_waiting_for_another_ends_at_the_deadline_and_counts_for_nothing() -> None:
    model, tally = Model(), Tally()
    through = ReadThrough(ScoreCache([], secret=b"s", observer=tally))
    model.gate.clear()
    owner = asyncio.create_task(scores_of(through, [A], model))
    await until(lambda: len(model.asked) == 1)

    (answer,) = await scores_of(through, [A], model, deadline=time.monotonic() + 0.02)

    assert isinstance(answer.failure, DeadlineExceededError)
    assert tally.n_waited == 0
    model.gate.set()
    assert logits(await owner) == [0.0]


async def test_nobody_waits_for_one_that_goes_later_and_whoever_comes_then_waits_for_the_first(
    through: ReadThrough,
) -> None:
    slow, fast = Model(), Model()
    slow.gate.clear()
    fast.gate.clear()

    def start(model: Model, priority: int) -> asyncio.Task[list[PairScore]]:
        return asyncio.create_task(scores_of(through, [A], model, priority=priority))

    late = start(slow, 900)
    await until(lambda: bool(slow.asked))
    early = start(fast, 0)
    await until(lambda: bool(fast.asked))
    slow.gate.set()
    await late  # which leaves to the other what is the other's
    third = start(slow, 0)
    await asyncio.sleep(0)
    fast.gate.set()

    assert [logits(await one) for one in (early, third)] == [[0.0]] * 2
    assert (slow.asked, fast.asked) == ([[0]], [[0]])
    assert through.flights == {}


async def test_what_must_not_be_kept_by_the_time_it_is_computed_is_not(
    through: ReadThrough, store: DictStore
) -> None:
    model = Model()
    model.gate.clear()
    may_keep = True
    asked = asyncio.create_task(scores_of(through, [A], model, keep=lambda: may_keep))
    await until(lambda: bool(model.asked))
    may_keep = False
    model.gate.set()

    assert logits(await asked) == [0.0]
    assert store.entries == {}


@pytest.mark.parametrize(("use", "is_kept"), [("refresh", True), ("off", False)])
async def test_who_wants_no_kept_score_gets_none(
    through: ReadThrough, store: DictStore, use: CacheUse, is_kept: bool
) -> None:
    model = Model()
    await scores_of(through, [A], model)

    answers = await scores_of(through, [B, A], model, use=use)

    assert model.asked == [[0], [0, 1]]
    assert [one.cached for one in answers] == [False, False]
    assert logits(answers) == [0.0, 1.0]
    assert (B in store.entries) == is_kept
    (later,) = await scores_of(through, [A], model)
    assert logits([later]) == [1.0 if is_kept else 0.0]


async def test_a_kept_score_that_is_no_answer_to_this_request_is_computed(
    through: ReadThrough,
) -> None:
    model = Model()
    model.cuts = True
    await scores_of(through, [A], model)

    await scores_of(through, [A], model, uncut=True)

    assert model.asked == [[0], [0]]


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - what it waits for happens within a turn or two
        await asyncio.sleep(0)
