import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Self

import numpy as np
import pytest

from tamis.engine.pairs import EncodedPair, Logits, logits_of
from tamis.errors import (
    DeadlineExceededError,
    InferenceError,
    QueueFullError,
    RequestTooLargeError,
    ShuttingDownError,
    UnscorableDocumentError,
)
from tamis.scheduler.execution import BatchRunner
from tamis.scheduler.jobs import Terms
from tamis.scheduler.observer import BatchCallback, BatchReport
from tamis.scheduler.scheduler import Scheduler, score_now
from tamis.testing import FakeBackend, WordTokenizer, fake_logit
from tests.pair_scores import failures_of

POISON = "poison"


class Gate:
    """Holds every batch until it is opened, and tells when one has come."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._opened = threading.Event()

    def __call__(self, pairs: Sequence[EncodedPair]) -> None:
        self._loop.call_soon_threadsafe(self.came.set)
        assert self._opened.wait(timeout=30)

    def open(self) -> None:
        """Let this batch and all later ones pass."""
        self._opened.set()

    def close(self) -> None:
        """Hold the batches that come from now on."""
        self._opened.clear()
        self.came.clear()


def pairs_of(*documents: str) -> list[EncodedPair]:
    """Pairs of one query with some documents."""
    return WordTokenizer().encode("what is a panda", documents)


def fail_on(document: str) -> Callable[[Sequence[EncodedPair]], None]:
    """A `before_forward` that fails each batch in which a document's pair is."""
    (bad,) = pairs_of(document)

    def check(pairs: Sequence[EncodedPair]) -> None:
        if any(fake_logit(pair) == fake_logit(bad) for pair in pairs):
            raise RuntimeError("the model fell over")

    return check


@asynccontextmanager
async def running(
    backend: FakeBackend,
    *,
    max_batch_tokens: int = 64,
    max_queued_tokens: int = 1_000_000,
    on_batch: Callable[[BatchReport], None] | None = None,
) -> AsyncIterator[Scheduler]:
    """A started scheduler that is closed at the end."""
    observer = None if on_batch is None else BatchCallback(on_batch)
    runner = BatchRunner(backend, max_batch_tokens=max_batch_tokens, observer=observer)
    scheduler = Scheduler(runner, max_queued_tokens=max_queued_tokens)
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.close()


async def submit(scheduler: Scheduler, pairs: Sequence[EncodedPair]) -> Logits:
    """All logits of some pairs, or an error."""
    return logits_of(await scheduler.submit(pairs))


def expected(pairs: Sequence[EncodedPair]) -> list[float]:
    """The logits of pairs that nobody else's pairs have disturbed."""
    return np.array([fake_logit(pair) for pair in pairs], dtype=np.float32).tolist()


async def test_a_request_gets_the_logits_of_its_pairs_in_their_order() -> None:
    pairs = pairs_of("a bear", "a much longer document than the others", "", "bamboo")

    async with running(FakeBackend(), max_batch_tokens=16) as scheduler:
        logits = await submit(scheduler, pairs)

    assert logits.tolist() == expected(pairs)
    assert logits.dtype == np.float32


async def test_a_request_without_pairs_gets_no_logits() -> None:
    async with running(FakeBackend()) as scheduler:
        assert (await submit(scheduler, [])).shape == (0,)


async def test_two_hundred_concurrent_requests_get_what_they_get_alone() -> None:
    draw = random.Random(20)
    requests = [
        pairs_of(
            *(f"w{n} {draw.random()} " * draw.randrange(20) for n in range(draw.choice(sizes)))
        )
        for sizes in [(0, 1), (1, 5, 50), (120,), (1, 2, 3)] * 50
    ]
    backend = FakeBackend()

    async with running(backend, max_batch_tokens=200) as scheduler:
        answers = await asyncio.gather(*(submit(scheduler, pairs) for pairs in requests))
        statistics = scheduler.statistics()

    assert [logits.tolist() for logits in answers] == [expected(pairs) for pairs in requests]
    assert sum(map(len, backend.batches)) == sum(map(len, requests))
    assert (statistics.n_queued_jobs, statistics.n_tokens) == (0, 0)


async def test_requests_that_come_while_a_batch_runs_share_the_next_one() -> None:
    gate = Gate()
    backend = FakeBackend(gate)

    async with running(backend) as scheduler:
        first = asyncio.create_task(submit(scheduler, pairs_of("first")))
        await gate.came.wait()
        others = [asyncio.create_task(submit(scheduler, pairs_of(f"w{n}"))) for n in range(3)]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, *others)

    assert [len(batch) for batch in backend.batches] == [1, 3]


async def test_a_request_is_admitted_whole_or_not_at_all() -> None:
    gate = Gate()
    backend = FakeBackend(gate)
    fits, too_much = pairs_of("a bear"), pairs_of(*["one two three"] * 8)

    async with running(backend, max_queued_tokens=80) as scheduler:
        running_request = asyncio.create_task(submit(scheduler, fits))
        await gate.came.wait()
        with pytest.raises(QueueFullError):
            await submit(scheduler, too_much[:7])
        gate.open()
        await running_request
        assert len(await submit(scheduler, too_much[:7])) == 7

    assert sum(map(len, backend.batches)) == 8


async def test_a_request_beyond_the_whole_queue_is_refused_and_nothing_is_computed() -> None:
    backend = FakeBackend()

    async with running(backend, max_queued_tokens=50) as scheduler:
        with pytest.raises(RequestTooLargeError):
            await submit(scheduler, pairs_of(*["one two three"] * 8))

    assert backend.batches == []


async def test_a_failed_batch_fails_only_the_requests_that_fail_alone() -> None:
    gate, check = Gate(), fail_on(POISON)

    def gated(pairs: Sequence[EncodedPair]) -> None:
        gate(pairs)
        check(pairs)

    async with running(FakeBackend(gated), max_batch_tokens=1000) as scheduler:
        first = asyncio.create_task(submit(scheduler, pairs_of("first")))
        await gate.came.wait()
        good, bad = pairs_of("good", "better"), pairs_of("fine", POISON)
        sharing = [asyncio.create_task(submit(scheduler, pairs)) for pairs in (good, bad, good)]
        await asyncio.sleep(0)
        gate.open()
        answers = await asyncio.gather(first, *sharing, return_exceptions=True)
        after = await submit(scheduler, good)
        statistics = scheduler.statistics()

    assert [type(answer) for answer in answers] == [
        np.ndarray,
        np.ndarray,
        UnscorableDocumentError,
        np.ndarray,
    ]
    assert "document 1 cannot be scored" in str(answers[2])
    assert after.tolist() == expected(good)
    assert statistics.n_tokens == 0


async def test_a_failed_request_has_its_waiting_pairs_dropped() -> None:
    backend = FakeBackend(fail_on(POISON + " the longest pair goes first"))

    async with running(backend, max_batch_tokens=16) as scheduler:
        with pytest.raises(InferenceError, match="RuntimeError") as caught:
            await submit(scheduler, pairs_of(*["w"] * 20, POISON + " the longest pair goes first"))
        await submit(scheduler, pairs_of("next"))

    assert len(backend.batches) == 2
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("change", [lambda n: n[:-1], lambda n: np.append(n, 0), lambda n: n / 0])
@pytest.mark.filterwarnings("ignore:divide by zero")
async def test_logits_of_the_wrong_number_or_not_finite_fail_the_request(
    change: Callable[[Logits], Logits],
) -> None:
    class Faulty(FakeBackend):
        def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
            return change(super().forward(pairs))

    async with running(Faulty()) as scheduler:
        requests = [submit(scheduler, pairs_of("a", "b")), submit(scheduler, pairs_of("c"))]
        answers = await asyncio.gather(*requests, return_exceptions=True)

    kinds = {InferenceError, UnscorableDocumentError}
    assert {type(answer) for answer in answers} <= kinds


async def test_a_cancelled_request_is_never_run() -> None:
    gate = Gate()
    backend = FakeBackend(gate)
    kept, gone = pairs_of("kept"), pairs_of("gone", "too")

    async with running(backend) as scheduler:
        first = asyncio.create_task(submit(scheduler, pairs_of("first")))
        await gate.came.wait()
        cancelled = asyncio.create_task(submit(scheduler, gone))
        stays = asyncio.create_task(submit(scheduler, kept))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        gate.open()
        await asyncio.gather(first, stays)

    assert backend.batches[1:] == [kept]


async def test_a_request_cancelled_while_its_batch_fails_is_not_tried_again() -> None:
    loop = asyncio.get_running_loop()
    kept, gone, after = pairs_of("kept"), pairs_of("gone"), pairs_of("after")
    tasks: list[asyncio.Task[Logits]] = []

    left = threading.Event()

    def fail_together(pairs: Sequence[EncodedPair]) -> None:
        if len(pairs) > 1:
            loop.call_soon_threadsafe(tasks[1].cancel)
            assert left.wait(timeout=30)
            raise RuntimeError

    backend = FakeBackend(fail_together)
    async with running(backend) as scheduler:
        tasks += [asyncio.create_task(submit(scheduler, pairs)) for pairs in (kept, gone)]
        tasks[1].add_done_callback(lambda _: left.set())
        await asyncio.gather(*tasks, return_exceptions=True)
        await submit(scheduler, after)

    assert backend.batches == [kept + gone, kept, after]


async def test_callers_of_a_loop_that_dies_are_told() -> None:
    class Death(BaseException):
        pass

    def die(_: Sequence[EncodedPair]) -> None:
        raise Death

    async with running(FakeBackend(die)) as scheduler:
        with pytest.raises(ShuttingDownError):
            await submit(scheduler, pairs_of("any"))


async def test_a_request_cancelled_while_it_runs_leaves_its_batch_mates_alone() -> None:
    gate = Gate()
    backend = FakeBackend(gate)

    async with running(backend) as scheduler:
        cancelled = asyncio.create_task(submit(scheduler, pairs_of("gone")))
        await gate.came.wait()
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        gate.open()
        kept = pairs_of("kept")
        assert (await submit(scheduler, kept)).tolist() == expected(kept)
        assert scheduler.statistics().n_tokens == 0


async def test_closing_answers_every_caller_and_keeps_the_event_loop_free() -> None:
    gate = Gate()
    backend = FakeBackend(gate)
    scheduler = Scheduler(BatchRunner(backend, max_batch_tokens=8), max_queued_tokens=1000)
    scheduler.start()
    callers = [asyncio.create_task(submit(scheduler, pairs_of(f"w{n}"))) for n in range(3)]
    await gate.came.wait()

    closing = asyncio.create_task(scheduler.close())
    answers = await asyncio.gather(*callers, return_exceptions=True)
    gate.open()
    await closing

    assert [type(answer) for answer in answers] == [ShuttingDownError] * 3
    assert len(backend.batches) == 1


@pytest.mark.parametrize("was_started", [False, True])
async def test_a_scheduler_that_does_not_run_takes_no_work(was_started: bool) -> None:
    scheduler = Scheduler(BatchRunner(FakeBackend(), max_batch_tokens=8), max_queued_tokens=1000)
    if was_started:
        scheduler.start()
        await scheduler.close()

    with pytest.raises(ShuttingDownError):
        await submit(scheduler, pairs_of("late"))

    assert not scheduler.statistics().running
    await scheduler.close()


async def test_statistics_count_what_waits_and_what_runs() -> None:
    gate = Gate()
    one, two = pairs_of("a bear"), pairs_of("bamboo", "a panda")

    async with running(FakeBackend(gate)) as scheduler:
        tasks = [asyncio.create_task(submit(scheduler, one))]
        await gate.came.wait()
        tasks.append(asyncio.create_task(submit(scheduler, two)))
        await asyncio.sleep(0)
        busy = scheduler.statistics()
        gate.open()
        await asyncio.gather(*tasks)

    assert busy.running
    assert busy.n_queued_jobs == 1
    assert busy.n_tokens == sum(pair.n_tokens for pair in one + two)


async def test_each_batch_is_reported_once() -> None:
    reports: list[BatchReport] = []
    pairs = pairs_of("a", "b", "c")

    async with running(FakeBackend(), on_batch=reports.append) as scheduler:
        await submit(scheduler, pairs)

    assert [(r.n_pairs, r.n_tokens, r.n_jobs) for r in reports] == [
        (3, sum(pair.n_tokens for pair in pairs), 1)
    ]
    assert reports[0].seconds >= 0


async def test_a_forward_pass_is_within_its_turn_and_a_failed_one_gives_it_back() -> None:
    events: list[str] = []

    class Turn(ExitStack):
        """Says when it is taken and given back."""

        def __enter__(self) -> Self:
            events.append("taken")
            self.callback(events.append, "given back")
            return self

    def compute(_: object) -> None:
        events.append("computing")
        if len(events) < 3:
            raise RuntimeError("the model fell over")

    runner = BatchRunner(FakeBackend(compute), max_batch_tokens=64)
    scheduler = Scheduler(runner, max_queued_tokens=1_000, turn=Turn())
    scheduler.start()
    with pytest.raises(InferenceError):
        await submit(scheduler, pairs_of("a"))
    await submit(scheduler, pairs_of("a"))
    await scheduler.close()

    assert events == ["taken", "computing", "given back"] * 2


async def test_a_reporter_that_fails_once_leaves_nobody_waiting() -> None:
    failures = [RuntimeError("no metrics today")]

    def report(_: BatchReport) -> None:
        if failures:
            raise failures.pop()

    async with running(FakeBackend(), on_batch=report) as scheduler:
        requests = [pairs_of("a"), pairs_of("b", "c")]
        answers = await asyncio.gather(*(submit(scheduler, pairs) for pairs in requests))

    assert [logits.tolist() for logits in answers] == [expected(pairs) for pairs in requests]


def test_without_an_event_loop_pairs_are_scored_batch_by_batch() -> None:
    backend, pairs = FakeBackend(), pairs_of("a", "b c d e f g h", "", "i")
    reports: list[BatchReport] = []

    logits = score_now(backend, pairs, max_batch_tokens=20, on_batch=reports.append)

    assert logits.tolist() == expected(pairs)
    assert [report.n_pairs for report in reports] == [1, 2, 1]


def test_without_an_event_loop_logits_that_are_not_finite_are_an_error() -> None:
    class Faulty(FakeBackend):
        def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
            return super().forward(pairs) * np.float32(np.nan)

    with pytest.raises(UnscorableDocumentError, match="finite"):
        score_now(Faulty(), pairs_of("a"), max_batch_tokens=20)


def slowly(seconds: float) -> Callable[[Sequence[EncodedPair]], None]:
    """A `before_forward` that takes its time."""
    return lambda _: time.sleep(seconds)


def due_in(seconds: float, *, partial: bool = False) -> Terms:
    """Terms of a caller who waits so long."""
    return Terms(deadline=time.monotonic() + seconds, partial=partial)


async def test_what_is_late_in_the_queue_is_told_at_once_and_never_run() -> None:
    gate = Gate()
    backend = FakeBackend(gate)
    late, timely = pairs_of("late"), pairs_of("timely")

    async with running(backend) as scheduler:
        first = asyncio.create_task(submit(scheduler, pairs_of("first")))
        await gate.came.wait()
        with pytest.raises(DeadlineExceededError, match="the time for this request was over"):
            await scheduler.submit(late, due_in(0.05))
        waiting = asyncio.create_task(scheduler.submit(timely, due_in(30)))
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, waiting)

    assert backend.batches[1:] == [timely]


async def measure_the_rate(scheduler: Scheduler) -> None:
    """Run three batches: fewer refuse nobody."""
    for number in range(3):
        await submit(scheduler, pairs_of(f"measures the rate {number}"))


async def test_what_cannot_be_done_in_time_is_refused_at_once() -> None:
    gate = Gate()
    gate.open()
    backend = FakeBackend(lambda pairs: (time.sleep(0.1), gate(pairs)))

    async with running(backend, max_batch_tokens=16) as scheduler:
        await measure_the_rate(scheduler)
        gate.close()
        busy = asyncio.create_task(submit(scheduler, pairs_of("keeps it busy")))
        await gate.came.wait()
        n_batches, started = len(backend.batches), time.monotonic()
        with pytest.raises(DeadlineExceededError, match=r"tokens behind \d+ others take about"):
            await scheduler.submit(pairs_of(*["one two three"] * 50), due_in(0.5))
        assert time.monotonic() - started < 0.4  # on a busy machine; a second otherwise
        assert len(backend.batches) == n_batches
        gate.open()
        await busy
        assert scheduler.statistics().n_tokens == 0


async def test_an_idle_scheduler_tries_whatever_the_rate_says() -> None:
    seconds = 0.1
    backend = FakeBackend(lambda pairs: time.sleep(seconds))
    pairs = pairs_of(*["one two three"] * 50)

    async with running(backend, max_batch_tokens=16) as scheduler:
        await measure_the_rate(scheduler)
        seconds = 0.0  # it was slow for a moment only
        scheduler.require_room(sum(pair.n_tokens for pair in pairs), due_in(0.5))
        scores = await scheduler.submit(pairs, due_in(0.5))

    assert logits_of(scores).tolist() == expected(pairs)


async def test_a_part_is_answered_at_the_deadline_where_it_is_enough() -> None:
    pairs = pairs_of("the longest document of all", *["one two three"] * 30)

    async with running(FakeBackend(slowly(0.1)), max_batch_tokens=16) as scheduler:
        started = time.monotonic()
        scores = await scheduler.submit(pairs, due_in(0.35, partial=True))
        seconds = time.monotonic() - started

    assert 0.3 < seconds < 0.8  # on a busy machine; all of it takes more than a second
    scored = np.flatnonzero(np.isfinite(logits_of(scores)))
    assert 1 <= len(scored) < len(pairs)
    assert logits_of(scores)[scored].tolist() == [expected(pairs)[n] for n in scored]
    assert set(failures_of(scores)) == set(range(len(pairs))) - set(scored.tolist())
    assert {error.code for error in failures_of(scores).values()} == {"deadline_exceeded"}


async def test_a_part_is_answered_where_a_document_cannot_be_scored() -> None:
    pairs = pairs_of("good", POISON, "better")

    async with running(FakeBackend(fail_on(POISON))) as scheduler:
        await submit(scheduler, pairs_of("first"))
        scores = await scheduler.submit(pairs, due_in(30, partial=True))

    assert {n: error.code for n, error in failures_of(scores).items()} == {1: "unscorable_document"}
    assert logits_of(scores)[[0, 2]].tolist() == [expected(pairs)[n] for n in (0, 2)]


async def test_a_full_queue_says_when_there_is_room_by_the_measured_rate() -> None:
    gate = Gate()
    gate.open()
    backend = FakeBackend(lambda pairs: (time.sleep(0.05), gate(pairs)))

    async with running(backend, max_batch_tokens=16, max_queued_tokens=200) as scheduler:
        await submit(scheduler, pairs_of("measures the rate"))
        tasks = [asyncio.create_task(submit(scheduler, pairs_of(*["w"] * 20)))]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as refused:
            await submit(scheduler, pairs_of(*["w"] * 15))
        rate = scheduler.statistics().tokens_per_second
        await asyncio.gather(*tasks)

    assert rate is not None
    assert refused.value.retry_after_seconds == pytest.approx(refused.value.n_tokens_over / rate)


async def test_a_small_request_waits_for_one_batch_of_a_large_one() -> None:
    gate = Gate()
    backend = FakeBackend(gate)
    large, small = pairs_of(*(f"document {n}" for n in range(1000))), pairs_of(*"abcde")

    async with running(backend, max_batch_tokens=100) as scheduler:
        tasks = [asyncio.create_task(submit(scheduler, large))]
        await gate.came.wait()
        tasks.append(asyncio.create_task(submit(scheduler, small)))
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(*tasks)

    before = next(n for n, batch in enumerate(backend.batches) if small[0] in batch)
    assert before <= 2  # the one that ran when it came, and one more


async def test_several_runners_share_one_queue() -> None:
    backends = [FakeBackend(slowly(0.01)) for _ in range(3)]
    scheduler = Scheduler(
        *(BatchRunner(backend, max_batch_tokens=16) for backend in backends),
        max_queued_tokens=10_000,
    )
    scheduler.start()
    pairs = pairs_of(*(f"document {n}" for n in range(60)))

    logits = await submit(scheduler, pairs)
    await scheduler.close()

    assert logits.tolist() == expected(pairs)
    assert all(backend.batches for backend in backends)
