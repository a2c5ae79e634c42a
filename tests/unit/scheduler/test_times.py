"""How a job's time is told: waiting until its first batch, and what came then."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from tamis.engine.pairs import EncodedPair
from tamis.errors import DeadlineExceededError
from tamis.scheduler.execution import BatchRunner
from tamis.scheduler.jobs import Terms
from tamis.scheduler.scheduler import Scheduler
from tamis.testing import FakeBackend, WordTokenizer
from tamis.timing import BatchRun, Phase, PhaseObserver

ROUNDING = 1e-6


class Times(PhaseObserver):
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Phase, float, float, list[BatchRun]]] = []

    def passed(
        self, name: Phase, started: float, ended: float, batches: Sequence[BatchRun] = ()
    ) -> None:
        self.told.append((name, started, ended, list(batches)))


def pairs(*documents: str) -> list[EncodedPair]:
    return WordTokenizer().encode("what is a panda", documents)


def started(
    times: Times, before_forward: Callable[[Sequence[EncodedPair]], object] | None = None
) -> Scheduler:
    """A running scheduler whose batches have 16 tokens."""
    runner = BatchRunner(FakeBackend(before_forward), max_batch_tokens=16)
    scheduler = Scheduler(runner, max_queued_tokens=10_000, timing=times)
    scheduler.start()
    return scheduler


async def test_queue_and_forward_follow_one_another_and_fill_the_jobs_time() -> None:
    times, before = Times(), time.monotonic()
    scheduler = started(times)
    await scheduler.submit(pairs("a bear", "a cat", "a dog"))
    after = time.monotonic()
    await scheduler.close()
    (queue, admitted, begun, none), (forward, also_begun, ended, runs) = times.told
    assert (queue, forward) == ("queue", "forward")
    assert not none
    assert before <= admitted <= begun == also_begun <= ended <= after
    assert begun == runs[0].started
    assert [run.started for run in runs] == sorted(run.started for run in runs)
    assert runs[-1].ended <= ended + ROUNDING
    assert sum(run.n_pairs for run in runs) == 3
    assert all(run.n_requests == 1 for run in runs)


async def test_a_batch_is_told_to_all_who_share_it() -> None:
    times, hold, reached = Times(), threading.Event(), threading.Event()

    def wait(_: Sequence[EncodedPair]) -> None:
        reached.set()
        assert hold.wait(30)

    runner = BatchRunner(FakeBackend(wait), max_batch_tokens=1000)
    scheduler = Scheduler(runner, max_queued_tokens=10_000, timing=times)
    scheduler.start()
    first = asyncio.create_task(scheduler.submit(pairs("first")))
    await asyncio.to_thread(reached.wait, 30)
    others = [asyncio.create_task(scheduler.submit(pairs(text))) for text in ("one", "two")]
    await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(first, *others)
    await scheduler.close()
    shared = [runs[0] for name, _, _, runs in times.told if name == "forward" and runs]
    assert sorted(run.n_requests for run in shared) == [1, 2, 2]
    assert {run.n_pairs for run in shared if run.n_requests == 2} == {2}


async def test_a_job_that_never_ran_has_waited_only() -> None:
    times, hold, reached = Times(), threading.Event(), threading.Event()

    def wait(_: Sequence[EncodedPair]) -> None:
        reached.set()
        assert hold.wait(30)

    scheduler = started(times, wait)
    first = asyncio.create_task(scheduler.submit(pairs("first")))
    await asyncio.to_thread(reached.wait, 30)
    with pytest.raises(DeadlineExceededError):
        await scheduler.submit(pairs("late"), Terms(deadline=time.monotonic() + 0.05))
    (told,) = times.told
    assert told[0] == "queue"
    assert told[2] - told[1] >= 0.04
    hold.set()
    await first
    await scheduler.close()
