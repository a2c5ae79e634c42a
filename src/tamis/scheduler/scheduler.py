"""Admission and the loops that run batches."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from tamis.engine.backend import Backend
from tamis.engine.pairs import EncodedPair, Logits, logits_of
from tamis.errors import (
    DeadlineExceededError,
    InferenceError,
    NotReadyError,
    QueueFullError,
    ShuttingDownError,
    TamisError,
    UnavailableError,
)
from tamis.scheduler.execution import BatchRunner
from tamis.scheduler.jobs import OPEN, Batch, Job, Terms
from tamis.scheduler.observer import BatchCallback, BatchReport
from tamis.scheduler.queue import PairQueue
from tamis.scheduler.rate import DrainRate, SuspensionClock
from tamis.timing import BatchRun, PhaseObserver
from tamis.types import PairScore, require_scored

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.25
"""How long an unavailable runner is waited for at a time: closing waits no longer."""

NO_TERMS = Terms()


@dataclass(frozen=True, slots=True)
class SchedulerStatistics:
    """The scheduler at one moment.

    Attributes:
        n_queued_jobs: Requests with pairs that no batch has taken.
        n_tokens: Tokens admitted and not yet answered.
        tokens_per_second: Lately, while there was work; None before the first batch.
        degraded: In which way a backend does less than it could; None while all is well.
    """

    running: bool
    n_queued_jobs: int
    n_tokens: int
    tokens_per_second: float | None = None
    degraded: str | None = None


def score_now(
    backend: Backend,
    pairs: Sequence[EncodedPair],
    *,
    max_batch_tokens: int,
    on_batch: Callable[[BatchReport], None] | None = None,
) -> Logits:
    """Score pairs in this thread, batch by batch; for callers without an event loop.

    Raises:
        TamisError: why the first pair without a logit has none.
    """
    job = Job(pairs)
    queue = PairQueue(max_tokens=max(1, job.n_tokens))
    queue.add(job)
    observer = None if on_batch is None else BatchCallback(on_batch)
    runner = BatchRunner(backend, max_batch_tokens=max_batch_tokens, observer=observer)
    while batch := queue.take(runner.max_batch_tokens):
        runner.run(batch.entries)
        require_scored(job.scores)
    return logits_of(job.scores)


class Scheduler:
    """Runs backends for many callers. Belongs to one event loop.

    While one batch runs in its model thread the queue fills, so that a lone request starts at
    once and a busy server batches by itself. Several runners share one queue.

    Args:
        runners: What runs batches; each gets a thread of its own.
        max_queued_tokens: Tokens of all callers, waiting or running.
        turn: Held during each batch; schedulers that share cores share a lock, so that their
            models do not compute at once. None where the backends are alone.
        timing: Hears how long each job waited, and how long its batches took.
    """

    def __init__(
        self,
        *runners: BatchRunner,
        max_queued_tokens: int,
        turn: AbstractContextManager[object] | None = None,
        timing: PhaseObserver | None = None,
    ) -> None:
        self._runners = runners
        self._turn = turn or nullcontext()
        self._timing = timing or PhaseObserver()
        self._queue = PairQueue(max_tokens=max_queued_tokens)
        self._rate = DrainRate()
        self._suspension = SuspensionClock()
        self._running_tokens = 0
        self._futures: dict[Job, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._threads = ThreadPoolExecutor(len(runners), thread_name_prefix="tamis-model")
        self._loops: list[asyncio.Task[None]] = []
        self._ticking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the loops; call from the event loop that will call `submit`."""
        loop = asyncio.get_running_loop()
        self._suspension.tick()
        self._loops = [loop.create_task(self._run(runner)) for runner in self._runners]
        self._ticking = loop.create_task(self._tick())

    async def close(self) -> None:
        """Stop after the running batches; callers still waiting get `ShuttingDownError`."""
        loops, self._loops = self._loops, []
        for loop in loops:
            loop.cancel()
        if self._ticking is not None:
            self._ticking.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        self._fail_all(ShuttingDownError("the server is shutting down"))
        await asyncio.to_thread(self._threads.shutdown)

    def statistics(self) -> SchedulerStatistics:
        """Where it stands now."""
        return SchedulerStatistics(
            self._running,
            self._queue.n_jobs,
            self._queue.n_tokens,
            self._rate.tokens_per_second,
            next((runner.degraded for runner in self._runners if runner.degraded), None),
        )

    def require_room(self, n_tokens: int, terms: Terms) -> None:
        """Refuse what could not be admitted, from an estimate, before anything is done for it.

        Args:
            n_tokens: The minimum number of its tokens.
            terms: The caller's.

        Raises:
            TamisError: as `submit` would.
        """
        if not self._running:
            raise ShuttingDownError("the server takes no new work")
        self._require_time(n_tokens, 0, terms)
        try:
            self._queue.require_room(n_tokens, terms)
        except QueueFullError as error:
            error.retry_after_seconds = self._rate.seconds_for(error.n_tokens_over)
            raise

    async def submit(
        self,
        pairs: Sequence[EncodedPair],
        terms: Terms = NO_TERMS,
        indices: Sequence[int] | None = None,
    ) -> list[PairScore]:
        """What became of each pair: all are scored or, where the terms allow it, what can be.

        A caller that is cancelled takes its waiting pairs with it.

        Args:
            pairs: What to score.
            terms: The caller's.
            indices: What the caller calls each pair, for messages; its position where None.

        Raises:
            QueueFullError: there is no room for them now; it says when to come again.
            RequestTooLargeError: there is never room for them.
            DeadlineExceededError: they cannot be, or were not, scored in time.
            ShuttingDownError: the scheduler is not running, or stopped before they ran.
            NotReadyError: every runner is unavailable, and not only briefly.
            UnscorableDocumentError: the model fails on one of them.
            OutOfMemoryError: one of them alone is too large for every device.
            InferenceError: the model failed as a whole.
        """
        if not self._running:
            raise ShuttingDownError("the server takes no new work")
        self._require_runner()
        job = Job(pairs, terms, indices)
        self._admit(job)
        admitted = time.monotonic()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures[job] = future
        self._wake.set()
        try:
            if not job.settled:
                await _until(future, terms.deadline)
            return self._scores(job)
        finally:
            self._queue.remove(job)
            del self._futures[job]
            self._tell(job, admitted, time.monotonic())

    def _tell(self, job: Job, admitted: float, left: float) -> None:
        """Say how a job's time was spent: until its first batch, and from there on."""
        self._timing.passed("queue", admitted, left if job.began is None else job.began)
        if job.began is not None:
            self._timing.passed("forward", job.began, left, job.runs)

    def _admit(self, job: Job) -> None:
        self.require_room(job.n_tokens, job.terms)
        n_before = self._queue.tokens_before(job) + self._running_tokens
        self._require_time(job.n_tokens, n_before, job.terms)
        self._queue.add(job)

    def _require_time(self, n_tokens: int, n_before: int, terms: Terms) -> None:
        """Refuse what cannot be done in time by the measured rate, unless a part is enough.

        An idle scheduler tries whatever comes: what it learns is the only thing that corrects a
        rate that is wrong.
        """
        if terms.partial or self._is_idle:
            return
        left = terms.deadline - time.monotonic()
        most = max(runner.max_batch_tokens for runner in self._runners)
        wanted = self._rate.sure_seconds_for(n_before + n_tokens, max_batch_tokens=most) or 0.0
        if wanted > left:
            raise DeadlineExceededError(
                f"{n_tokens:,} tokens behind {n_before:,} others take about {wanted:.1f} s, "
                f"and {max(0.0, left):.1f} s are left; send fewer documents or allow more time"
            )

    @property
    def _is_idle(self) -> bool:
        return not self._running_tokens and not self._queue.n_jobs

    def _scores(self, job: Job) -> list[PairScore]:
        """What has become of a job now: at its deadline, or when every pair is settled.

        Raises:
            TamisError: why the first pair without a logit has none, unless a part is enough.
        """
        late = PairScore.failed(DeadlineExceededError("the time for this request was over"))
        so_far = list(job.scores)
        scores = [late if score is OPEN else score for score in so_far]
        if not job.terms.partial:
            require_scored(so_far)
            require_scored(scores)
        return scores

    @property
    def _running(self) -> bool:
        return bool(self._loops) and not any(loop.done() for loop in self._loops)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._suspension.TICK_SECONDS)
            self._suspension.tick()

    async def _run(self, runner: BatchRunner) -> None:
        try:
            while True:
                await self._until_available(runner)
                batch = self._queue.take(runner.max_batch_tokens, time.monotonic())
                if batch is None:
                    self._wake.clear()
                    await self._wake.wait()
                else:
                    await self._score(runner, batch)
        finally:
            self._fail_all(ShuttingDownError("the scheduler has stopped"))

    async def _until_available(self, runner: BatchRunner) -> None:
        """Leave the queue to other runners while this one is unavailable."""
        loop = asyncio.get_running_loop()
        while runner.fault is not None:
            try:
                self._require_runner()
            except NotReadyError as error:
                self._fail_all(error)
            wait = runner.wait_until_available
            await loop.run_in_executor(self._threads, wait, _LOOK_AGAIN_SECONDS)

    def _require_runner(self) -> None:
        """Refuse while nothing is there to run on, and waiting is no use."""
        faults = [runner.fault for runner in self._runners]
        lasting = [fault for fault in faults if fault is not None and fault.is_lasting]
        if len(lasting) == len(faults):
            raise NotReadyError(f"{lasting[0].reason}; try again later")

    async def _score(self, runner: BatchRunner, batch: Batch) -> None:
        n_tokens = batch.n_tokens
        self._running_tokens += n_tokens
        try:
            loop = asyncio.get_running_loop()
            suspended = self._suspension.suspended_seconds
            run = await loop.run_in_executor(self._threads, self._run_in_turn, runner, batch)
            suspended = self._suspension.suspended_seconds - suspended
            self._rate.observe(n_tokens, (run.ended - run.started - suspended) / len(self._runners))
            for job in batch.jobs:
                job.runs.append(run)
        except Exception as error:
            logger.exception("a batch of %d pairs could not be run", len(batch.entries))
            failure = InferenceError(f"the model failed ({type(error).__name__})")
            failure.__cause__ = error
            _give_up(batch, failure)
        finally:
            self._running_tokens -= n_tokens
        for job in batch.jobs:
            self._resolve(job)

    def _run_in_turn(self, runner: BatchRunner, batch: Batch) -> BatchRun:
        jobs = batch.jobs
        with self._turn:
            started = time.monotonic()
            for job in jobs:
                job.began = started if job.began is None else job.began
            runner.run(batch.entries)
            ended = time.monotonic()
        return BatchRun(started, ended, len(batch.entries), batch.n_tokens, len(jobs))

    def _resolve(self, job: Job) -> None:
        future = self._futures.get(job)
        if future is not None and (job.settled or (job.has_failed and not job.terms.partial)):
            self._queue.drop(job)  # of one that has failed no more is wanted
            _resolve(future)

    def _fail_all(self, error: UnavailableError) -> None:
        for future in self._futures.values():
            if not future.done():
                future.set_exception(error)


async def _until(future: asyncio.Future[None], deadline: float) -> None:
    """Wait for a future, or for a moment of `time.monotonic()`, whichever comes first."""
    loop = asyncio.get_running_loop()
    timer = None
    if deadline != float("inf"):
        when = loop.time() + max(0.0, deadline - time.monotonic())
        timer = loop.call_at(when, _resolve, future)
    try:
        await future
    finally:
        if timer is not None:
            timer.cancel()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _give_up(batch: Batch, error: TamisError) -> None:
    """Settle what a batch has left open."""
    for job, position in batch.entries:
        if job.scores[position] is OPEN:
            job.fail(position, error)
