"""Admission and the one loop that runs batches."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from tamis.engine.backend import Backend
from tamis.engine.pairs import EncodedPair, Logits
from tamis.errors import InferenceError, ShuttingDownError
from tamis.scheduler.queue import Batch, Job, PairQueue

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One forward pass.

    Attributes:
        n_jobs: Requests that shared it.
    """

    n_pairs: int
    n_tokens: int
    n_jobs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SchedulerStatistics:
    """The scheduler at one moment.

    Attributes:
        n_queued_jobs: Requests with pairs that no batch has taken.
        n_tokens: Tokens admitted and not yet answered.
    """

    running: bool
    n_queued_jobs: int
    n_tokens: int


def run_batch(
    backend: Backend, batch: Batch, on_batch: Callable[[BatchReport], None] | None = None
) -> None:
    """One forward pass: scores a batch, reports it and hands out its logits, all or none.

    Raises:
        InferenceError: a logit is not a finite number.
    """
    pairs = batch.pairs
    started = time.monotonic()
    logits = backend.forward(pairs)
    seconds = time.monotonic() - started
    if not np.isfinite(logits).all():
        raise InferenceError("the model gave logits that are not finite")
    if on_batch is not None:
        n_tokens = sum(pair.n_tokens for pair in pairs)
        on_batch(BatchReport(len(pairs), n_tokens, len(batch.jobs), seconds))
    batch.deliver(logits)


def score_now(
    backend: Backend,
    pairs: Sequence[EncodedPair],
    *,
    max_batch_tokens: int,
    on_batch: Callable[[BatchReport], None] | None = None,
) -> Logits:
    """Score pairs in this thread, batch by batch; for callers without an event loop."""
    job = Job(pairs)
    queue = PairQueue(max_tokens=job.n_tokens)
    queue.add(job)
    while batch := queue.take(max_batch_tokens):
        run_batch(backend, batch, on_batch)
    return job.logits


class Scheduler:
    """Runs a backend for many callers. Belongs to one event loop.

    While one batch runs in the model thread the queue fills, so that a lone request starts at
    once and a busy server batches by itself.

    Args:
        turn: Held during each forward pass; schedulers that share cores share a lock, so that
            their models do not compute at once. None where the backend is alone.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_batch_tokens: int,
        max_queued_tokens: int,
        on_batch: Callable[[BatchReport], None] | None = None,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        self._turn = turn or nullcontext()
        self._backend = backend
        self._max_batch_tokens = max_batch_tokens
        self._on_batch = on_batch
        self._queue = PairQueue(max_tokens=max_queued_tokens)
        self._futures: dict[Job, asyncio.Future[Logits]] = {}
        self._wake = asyncio.Event()
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="tamis-model")
        self._loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the loop; call from the event loop that will call `submit`."""
        self._loop_task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop after the running batch; callers still waiting get `ShuttingDownError`."""
        task, self._loop_task = self._loop_task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._fail_all(ShuttingDownError("the server is shutting down"))
        await asyncio.to_thread(self._model_thread.shutdown)

    def statistics(self) -> SchedulerStatistics:
        """Where it stands now."""
        return SchedulerStatistics(self._running, self._queue.n_jobs, self._queue.n_tokens)

    async def submit(self, pairs: Sequence[EncodedPair]) -> Logits:
        """Score pairs, all or none.

        A caller that is cancelled takes its waiting pairs with it.

        Raises:
            QueueFullError: there is no room for them now.
            RequestTooLargeError: there is never room for them.
            ShuttingDownError: the scheduler is not running, or stopped before they ran.
            InferenceError: the model failed on them.
        """
        if not self._running:
            raise ShuttingDownError("the server takes no new work")
        job = Job(pairs)
        self._queue.add(job)
        future: asyncio.Future[Logits] = asyncio.get_running_loop().create_future()
        self._futures[job] = future
        self._wake.set()
        try:
            return await future if job.n_unscored else job.logits
        finally:
            self._queue.remove(job)
            del self._futures[job]

    @property
    def _running(self) -> bool:
        return self._loop_task is not None and not self._loop_task.done()

    async def _run(self) -> None:
        try:
            while True:
                batch = self._queue.take(self._max_batch_tokens)
                if batch is None:
                    self._wake.clear()
                    await self._wake.wait()
                else:
                    await self._score(batch)
        finally:
            self._fail_all(ShuttingDownError("the scheduler has stopped"))

    async def _score(self, batch: Batch) -> None:
        """Run a batch; where it fails, each of its jobs that is still wanted again alone."""
        error = await self._attempt(batch)
        if error is not None and len(batch.jobs) > 1:
            for job in batch.jobs:
                if job in self._futures:
                    await self._score(batch.only(job))
            return
        for job in batch.jobs:
            job.error = error
            self._resolve(job)

    async def _attempt(self, batch: Batch) -> InferenceError | None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._model_thread, self._run_in_turn, batch)
        except Exception as error:  # a model failure of any kind must reach the callers it hit
            logger.exception("a batch of %d pairs failed", len(batch.entries))
            failure = InferenceError(f"the model failed on this request ({type(error).__name__})")
            failure.__cause__ = error
            return failure
        return None

    def _run_in_turn(self, batch: Batch) -> None:
        with self._turn:
            run_batch(self._backend, batch, self._on_batch)

    def _resolve(self, job: Job) -> None:
        future = self._futures.get(job)
        if future is None or future.done() or not job.finished:
            return
        if job.error is not None:
            job.waiting.clear()
            future.set_exception(job.error)
        else:
            future.set_result(job.logits)

    def _fail_all(self, error: ShuttingDownError) -> None:
        for future in self._futures.values():
            if not future.done():
                future.set_exception(error)
