"""Keeps one worker running: starts it, reads what it sends, watches the clock, restarts it."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Literal

import numpy as np

from tamis.engine.backend import Fault
from tamis.engine.pairs import Logits
from tamis.errors import InferenceError, NotReadyError, ShuttingDownError, TamisError
from tamis.workers.channel import (
    FromWorker,
    Log,
    Ping,
    Ready,
    Refused,
    Start,
    Work,
    WorkDone,
    WorkFailed,
    refusal,
)
from tamis.workers.process import WORKER_COMMAND, WorkerProcess
from tamis.workers.restart_policy import RestartPolicy
from tamis.workers.stall_detector import StallDetector

logger = logging.getLogger(__name__)

FAILED_BATCHES_UNTIL_RESTART = 5
"""In a row; a restart may repair a worker whose model raises on every batch."""
START_SECONDS = 1800.0
"""For a worker to load, and where needed download and convert, its model."""

_TICK_SECONDS = 0.1
WorkerState = Literal["starting", "up", "failing"]


@dataclass(frozen=True, slots=True)
class WorkerTimeouts:
    """How long a worker may take, and how long to wait between restarts.

    Attributes:
        stall_seconds: Without progress, at least (see `StallDetector`).
        start_seconds: From its start to its `Ready`.
        initial_backoff_seconds: See `RestartPolicy`.
        max_backoff_seconds: See `RestartPolicy`.
        exit_seconds: To exit by itself when the server shuts down.
    """

    stall_seconds: float = 10.0
    start_seconds: float = START_SECONDS
    initial_backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30.0
    exit_seconds: float = 2.0


class WorkerLostError(Exception):
    """The worker that was running the batch is gone."""


@dataclass(slots=True)
class _RunningBatch:
    """The batch that the worker is running."""

    n_tokens: int
    since: float
    outcome: "Future[Logits]" = field(default_factory=Future)


class Supervisor:
    """Supervises one worker at a time, in a thread of its own.

    The thread starts the worker, reads every frame it sends, watches the clock and restarts it
    when it exits or hangs. Other threads submit batches.

    Args:
        number: Which of several workers it is, for messages.
        environment: Variables the worker gets in addition to the server's.
        timeouts: How long things may take.
        command: The worker's program.
        on_restart: Called before each restart.

    Attributes:
        ready: What the newest worker that came up said about the model.
    """

    def __init__(
        self,
        number: int,
        *,
        environment: Mapping[str, str] | None = None,
        timeouts: WorkerTimeouts | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        on_restart: Callable[[], object] = lambda: None,
    ) -> None:
        self.number = number
        self.ready: Ready | None = None
        self._start: Start | None = None
        self._environment = environment or {}
        self._timeouts = timeouts or WorkerTimeouts()
        self._command = command
        self._on_restart = on_restart
        self._stalls = StallDetector(self._timeouts.stall_seconds)
        self._restarts = RestartPolicy(
            self._timeouts.initial_backoff_seconds, self._timeouts.max_backoff_seconds
        )
        self._changed = Condition()
        self._state: WorkerState = "starting"
        self._closed = False
        self._reason = "is loading its model"
        self._refusal: TamisError | None = None
        self._n_failed_batches = 0
        self._restart_reason: str | None = None
        self._process: WorkerProcess | None = None
        self._batch: _RunningBatch | None = None
        self._pinged: float | None = None
        self._last_frame = 0.0
        self._up_since: float | None = None
        self._thread = Thread(target=self._supervise, name=f"tamis-worker-{number}", daemon=True)

    def start(self, start: Start) -> None:
        """Start the worker; returns at once. Every restart gets the same `Start` frame."""
        with self._changed:
            if not self._closed:
                self._start = start
                self._thread.start()

    def wait_until_ready(self) -> Ready:
        """Wait until the worker is up, however many restarts that takes.

        Raises:
            TamisError: the model cannot be loaded, which a restart would not change.
            ShuttingDownError: the supervisor was closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.ready or self._refusal)
            if self._closed:
                raise ShuttingDownError("the server is shutting down")
            if self.ready is not None:
                return self.ready
            assert self._refusal is not None  # noqa: S101 - nothing else ends the wait
            raise self._refusal

    def wait_until_ready_or_failed(self) -> None:
        """Wait until the worker is up, or has failed once."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.ready or self._restarts.n_failures)

    @property
    def pid(self) -> int | None:
        """The worker's process id; None between two workers."""
        process = self._process
        return None if process is None else process.pid

    @property
    def fault(self) -> Fault | None:
        """Why the worker cannot run a batch now; None while it can."""
        with self._changed:
            if self._state == "up" and not self._closed:
                return None
            lasting = self._closed or self._state == "failing"
            return Fault(f"worker {self.number} {self._reason}", is_lasting=lasting)

    def wait_until_available(self, seconds: float) -> None:
        """Return when the worker can run a batch, or after the given time."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._state == "up", seconds)

    def restart(self, reason: str) -> None:
        """Have the worker replaced; it counts as one that did not come up."""
        with self._changed:
            if self._process is not None and self._state == "up":
                self._restart_reason = reason
                self._state, self._reason = "starting", "is being stopped"

    def submit(self, work: Work, n_tokens: int) -> "Future[Logits]":
        """Send a batch to the worker, once it is up. One batch at a time.

        Returns:
            The logits, or `WorkerLostError`, or what the worker reported.

        Raises:
            NotReadyError: the worker is in a crash loop.
            ShuttingDownError: the supervisor is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._state != "starting")
            if self._closed:
                raise ShuttingDownError("the server is shutting down")
            if self._process is None or self._state == "failing":
                raise NotReadyError(f"worker {self.number} {self._reason}; try again later")
            batch = self._batch = _RunningBatch(n_tokens, time.monotonic())
            channel = self._process.channel
        try:
            channel.send(work)
        except OSError:  # the supervisor's thread sees its end, too, and settles the batch
            logger.debug("worker %d exited before it got its batch", self.number)
        return batch.outcome

    def close(self) -> None:
        """Stop the worker, even in the middle of a batch, which gets `ShuttingDownError`."""
        self.begin_close()
        if self._thread.is_alive():
            self._thread.join()

    def begin_close(self) -> None:
        """The part of `close` that does not wait."""
        with self._changed:
            self._closed, self._reason = True, "is closed"
            batch, self._batch = self._batch, None
            if batch is not None:
                batch.outcome.set_exception(ShuttingDownError("the server is shutting down"))
            if self._process is not None:
                self._process.channel.shut_down()
            self._changed.notify_all()

    def _supervise(self) -> None:
        """Run one worker after the other until closed."""
        while self._prepare_restart(self._run_worker()):
            self._on_restart()

    def _run_worker(self) -> str:
        """Run a worker from its start to its exit; returns the reason of its exit."""
        started = time.monotonic()
        assert self._start is not None  # noqa: S101 - the thread runs because there is one
        try:
            process = WorkerProcess(self._command, self._start, self._environment)
        except OSError as error:
            return f"could not be started ({error.strerror or type(error).__name__})"
        with self._changed:
            self._process, self._last_frame, self._pinged = process, started, None
            self._n_failed_batches, self._restart_reason = 0, None
        try:
            return self._read_frames(process, started)
        finally:
            with self._changed:
                self._process = None
                if self._state == "up":
                    self._state, self._reason = "starting", "is being stopped"
            process.end(self._timeouts.exit_seconds if self._closed else 0.0)

    def _read_frames(self, process: WorkerProcess, started: float) -> str:
        """Handle what the worker sends until it must be replaced; returns the reason."""
        refused: str | None = None
        while not self._closed:
            try:
                frame = process.channel.receive(_TICK_SECONDS)
                if isinstance(frame, Refused):
                    refused = f"cannot load the model ({frame.code})"  # paths: in the log only
                    if self.number or self.ready:  # else the server ends with this sentence
                        logger.error("worker %d: %s", self.number, frame.message)
                if frame is not None:
                    self._handle(frame)
                reason = self._reason_to_replace(started)
            except (EOFError, OSError):
                return refused or process.exit_reason()
            except ValueError as error:
                return f"sent an invalid frame ({type(error).__name__})"
            if reason is not None:
                return reason
            if self._n_failed_batches >= FAILED_BATCHES_UNTIL_RESTART:
                return f"failed on {self._n_failed_batches} batches in a row"
        return "is closed"

    def _handle(self, frame: FromWorker) -> None:
        if isinstance(frame, Log):
            message = f"worker {self.number}: {frame.message}"
            level = min(frame.level, logging.ERROR)  # what ends a worker does not end the server
            logging.getLogger(frame.logger).log(level, "%s", message)
            return
        with self._changed:
            self._last_frame, self._pinged = time.monotonic(), None
            if isinstance(frame, Ready):
                self.ready, self._state, self._up_since = frame, "up", self._last_frame
                self._stalls.seconds_per_token = frame.seconds_per_token
                self._changed.notify_all()
            elif isinstance(frame, Refused):
                self._refusal = refusal(frame)
                self._changed.notify_all()
        if isinstance(frame, WorkDone | WorkFailed):
            self._finish_batch(frame)

    def _finish_batch(self, frame: WorkDone | WorkFailed) -> None:
        outcome = _outcome(frame, self.number)  # before all else: it raises on a broken frame
        with self._changed:
            batch, self._batch = self._batch, None
            if isinstance(frame, WorkDone):
                self._n_failed_batches = 0
                self._restarts.record_answer()
            elif not frame.out_of_memory:
                self._n_failed_batches += 1
        if batch is None:
            return
        if isinstance(outcome, Exception):
            batch.outcome.set_exception(outcome)
        else:
            self._stalls.observe(time.monotonic() - batch.since)
            batch.outcome.set_result(outcome)

    def _reason_to_replace(self, started: float) -> str | None:
        """Why the worker must be replaced now; pings it when it is idle."""
        now = time.monotonic()
        timeouts = self._timeouts
        with self._changed:
            if self._restart_reason is not None:
                return self._restart_reason
            if self._state != "up":
                late = now - started > timeouts.start_seconds
                return f"was not ready after {timeouts.start_seconds:g} s" if late else None
            if self._batch is not None:
                seconds = now - self._batch.since
                stalled = self._stalls.is_stalled(seconds, self._batch.n_tokens)
                return f"made no progress for {seconds:.1f} s" if stalled else None
            if self._pinged is None:
                if now - self._last_frame > timeouts.stall_seconds / 2 and self._process:
                    self._pinged = now
                    self._process.channel.send(Ping())  # it has read all else: there is room
                return None
            silent = now - self._pinged > timeouts.stall_seconds
            return f"did not answer a ping for {timeouts.stall_seconds:g} s" if silent else None

    def _prepare_restart(self, reason: str) -> bool:
        """Fail the batch that was lost and wait out the backoff; False if there is no restart."""
        with self._changed:
            if self._closed:
                return False
            is_last = self.ready is None and self._refusal is not None
            self._record_exit(reason, is_last=is_last)
            batch, self._batch = self._batch, None
            if batch is not None:
                batch.outcome.set_exception(WorkerLostError(f"the last {reason}"))
            self._changed.notify_all()
        if is_last:
            return False  # `wait_until_ready` raises why
        logger.error("worker %d %s", self.number, self._reason)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, self._restarts.backoff_seconds)
            return not self._closed

    def _record_exit(self, reason: str, *, is_last: bool) -> None:
        up_since, self._up_since = self._up_since, None
        if self._restart_reason is not None:
            up_since = None  # it did no work
        self._restarts.record_exit(None if up_since is None else time.monotonic() - up_since)
        if is_last or self._restarts.is_crash_loop:
            self._state = "failing"
        n_failures = self._restarts.n_failures
        self._reason = f"{reason}; restarting it"
        if n_failures > 1:
            self._reason = f"has failed {n_failures} times in a row: the last {reason}"


def _outcome(frame: WorkDone | WorkFailed, number: int) -> Logits | Exception:
    """Logits, or the error that a worker reported.

    Raises:
        ValueError: the bytes are not float32.
    """
    if isinstance(frame, WorkDone):
        return np.frombuffer(frame.logits, dtype="<f4")
    if frame.out_of_memory:
        return MemoryError(f"worker {number} is out of memory")
    return InferenceError(f"the model failed on this request ({frame.kind})")
