"""Runners whose backends are out of order for a while."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from threading import Event

import pytest

from tamis.engine.backend import Fault
from tamis.engine.pairs import EncodedPair, Logits, logits_of
from tamis.errors import NotReadyError
from tamis.scheduler.execution import BatchRunner
from tamis.scheduler.scheduler import Scheduler
from tamis.testing import FakeBackend, WordTokenizer, fake_logit

PAIRS = WordTokenizer().encode("what is a panda", ["a bear", "a city"])
LOGITS = [pytest.approx(fake_logit(pair)) for pair in PAIRS]
AWAY = Fault("worker 0 is away", is_lasting=False)
GONE = Fault("worker 0 is gone", is_lasting=True)


class Moody(FakeBackend):
    """Out of order until told otherwise."""

    def __init__(self, fault: Fault | None) -> None:
        super().__init__()
        self.fault = fault
        self.asked = Event()
        self.fit = Event()

    def wait_until_available(self, seconds: float) -> None:
        """See `SupervisedBackend.wait_until_available`."""
        self.asked.set()
        self.fit.wait(seconds)

    def mend(self) -> None:
        """Be in order from now on."""
        self.fault = None
        self.fit.set()


@asynccontextmanager
async def scheduling(*backends: FakeBackend) -> AsyncIterator[Scheduler]:
    """A scheduler on backends, closed at the end."""
    runners = [BatchRunner(backend, max_batch_tokens=1000) for backend in backends]
    scheduler = Scheduler(*runners, max_queued_tokens=10_000)
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.close()


async def test_a_runner_that_is_away_leaves_the_queue_to_the_others() -> None:
    away, here = Moody(AWAY), FakeBackend()
    async with scheduling(away, here) as scheduler:
        for _ in range(5):
            assert logits_of(await scheduler.submit(PAIRS)).tolist() == LOGITS
        assert scheduler.statistics().degraded == "worker_down"
    assert away.batches == []
    assert len(here.batches) == 5


async def test_what_waits_is_run_when_the_runner_is_back() -> None:
    backend = Moody(AWAY)
    async with scheduling(backend) as scheduler:
        waiting = asyncio.create_task(scheduler.submit(PAIRS))
        assert await asyncio.to_thread(backend.asked.wait, 30)
        assert not waiting.done()
        backend.mend()
        assert logits_of(await waiting).tolist() == LOGITS
        assert scheduler.statistics().degraded is None


async def test_nobody_is_admitted_while_every_runner_is_gone() -> None:
    async with scheduling(Moody(GONE), Moody(GONE)) as scheduler:
        with pytest.raises(NotReadyError, match="worker 0 is gone"):
            await scheduler.submit(PAIRS)
    async with scheduling(Moody(GONE), FakeBackend()) as scheduler:
        assert logits_of(await scheduler.submit(PAIRS)).tolist() == LOGITS


async def test_who_waited_is_told_when_the_last_runner_is_gone_for_good() -> None:
    backend = Moody(AWAY)
    async with scheduling(backend) as scheduler:
        waiting = asyncio.create_task(scheduler.submit(PAIRS))
        assert await asyncio.to_thread(backend.asked.wait, 30)
        backend.fault = GONE
        with pytest.raises(NotReadyError, match="worker 0 is gone"):
            await waiting
        backend.mend()
        assert logits_of(await scheduler.submit(PAIRS)).tolist() == LOGITS


async def test_a_batch_that_nothing_is_there_for_is_no_fault_of_its_pairs() -> None:
    class Leaving(FakeBackend):
        def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
            super().forward(pairs)
            if len(self.batches) == 2:
                raise NotReadyError("worker 0 is gone")
            return FakeBackend().forward(pairs)

    backend = Leaving()
    async with scheduling(backend) as scheduler:
        await scheduler.submit(PAIRS)
        with pytest.raises(NotReadyError, match="worker 0 is gone"):
            await scheduler.submit(PAIRS)
        assert logits_of(await scheduler.submit(PAIRS)).tolist() == LOGITS
    assert [len(batch) for batch in backend.batches] == [2, 2, 2]  # nothing was bisected
