"""A model in a process of its own, as a backend that puts itself in order again."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Lock, Thread
from typing import Literal

import numpy as np

from tamis.engine.backend import Fault
from tamis.engine.padding import Padding
from tamis.engine.pairs import EncodedPair, Logits
from tamis.errors import InferenceError, NotReadyError, ShuttingDownError, TamisError
from tamis.workers.channel import (
    Answer,
    Failed,
    Log,
    Ping,
    Ready,
    Refused,
    Report,
    Start,
    Work,
    pack,
    refusal,
)
from tamis.workers.patience import Patience
from tamis.workers.process import WORKER_COMMAND, WorkerProcess
from tamis.workers.setbacks import Setbacks

logger = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 5
"""Batches that the model raises on; a worker that does nothing else may be mended by its end."""

_TICK_SECONDS = 0.1
State = Literal["starting", "up", "failing"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        stall: Without progress, at least (see `Patience`).
        start: From a worker's start to its first sign of being ready.
        first_pause: See `Setbacks`.
        longest_pause: See `Setbacks`.
        end: For a worker to end by itself when the server does.
    """

    stall: float = 10.0
    start: float = 1800.0
    first_pause: float = 0.5
    longest_pause: float = 30.0
    end: float = 2.0


class _LostError(Exception):
    """The worker that had the batch is gone."""


@dataclass(slots=True)
class _Given:
    """The batch that the worker has."""

    n_tokens: int
    since: float
    outcome: "Future[Logits]" = field(default_factory=Future)


class WorkerBackend:
    """Has batches run by a worker, and another one in its place when it ends or hangs.

    A thread starts it, reads all that it says, watches the clock and starts it again. The model's
    thread gives a batch and waits; a batch whose worker was lost is given once more, to a colleague
    or to the next worker: that is safe, since a batch has no effect but its logits.

    Args:
        number: Which of several it is, for people.
        environment: Variables a worker has besides the server's.
        limits: How long things may take.
        command: The worker's program.
        on_restart: Called before each start but the first.

    Attributes:
        colleagues: Backends of the same model, which may be itself among them.
    """

    def __init__(
        self,
        number: int,
        *,
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        on_restart: Callable[[], object] = lambda: None,
    ) -> None:
        self.number = number
        self.ready: Ready | None = None
        self.colleagues: Sequence[WorkerBackend] = ()
        self._start: Start | None = None
        self._environment = environment or {}
        self._limits = limits or Limits()
        self._command = command
        self._on_restart = on_restart
        self._patience = Patience(self._limits.stall)
        self._turn = Lock()
        self._changed = Condition()
        self._state: State = "starting"
        self._closed = False
        self._reason = "is loading its model"
        self._refusal: TamisError | None = None
        self._setbacks = Setbacks(self._limits.first_pause, self._limits.longest_pause)
        self._n_raised = 0
        self._given_up: str | None = None
        self._process: WorkerProcess | None = None
        self._given: _Given | None = None
        self._pinged: float | None = None
        self._heard = 0.0
        self._up_since: float | None = None
        self._thread = Thread(target=self._look_after, name=f"tamis-worker-{number}", daemon=True)

    def start(self, start: Start) -> None:
        """Start the first worker, with what every one gets told; returns at once."""
        with self._changed:
            if not self._closed:
                self._start = start
                self._thread.start()

    def wait_until_ready(self) -> Ready:
        """Wait for the first worker that is up, however many it takes.

        Raises:
            TamisError: the model cannot be loaded, which the next worker could not either.
            ShuttingDownError: it was closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.ready or self._refusal)
            if self._closed:
                raise ShuttingDownError("the server is shutting down")
            if self.ready is not None:
                return self.ready
            assert self._refusal is not None  # noqa: S101 - nothing else ends the wait
            raise self._refusal

    def wait_until_settled(self) -> None:
        """Wait until a first worker is up, or has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.ready or self._setbacks.n_failures)

    @property
    def pid(self) -> int | None:
        """The worker's number; None between two of them."""
        process = self._process
        return None if process is None else process.pid

    @property
    def fault(self) -> Fault | None:
        """See `SupervisedBackend.fault`."""
        with self._changed:
            if self._state == "up" and not self._closed:
                return None
            lasting = self._closed or self._state == "failing"
            return Fault(f"worker {self.number} {self._reason}", is_lasting=lasting)

    @property
    def padding(self) -> Padding:
        """See `PaddingBackend.padding`."""
        return "none" if self.ready is None else self.ready.padding

    def wait_until_fit(self, seconds: float) -> None:
        """See `SupervisedBackend.wait_until_fit`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._state == "up", seconds)

    def renew(self, reason: str) -> None:
        """See `RenewableBackend.renew`; a worker that must be renewed counts as one not started."""
        with self._changed:
            if self._process is not None and self._state == "up":
                self._given_up = reason
                self._state, self._reason = "starting", "is being ended"

    def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
        """See `Backend.forward`.

        Raises:
            InferenceError: the model raised, or two workers were lost over these pairs.
            MemoryError: the worker has not the memory for them.
            NotReadyError: no worker can be had at present.
            ShuttingDownError: it is closed.
        """
        work, n_tokens = pack(pairs), sum(pair.n_tokens for pair in pairs)
        try:
            return self.exchange(work, n_tokens)
        except _LostError:
            logger.warning("a batch of %d pairs is given to another worker", len(pairs))
        present = (one for one in self.colleagues if one is not self and one.fault is None)
        try:
            return next(present, self).exchange(work, n_tokens)
        except _LostError as lost:
            raise InferenceError(f"two workers in a row were lost over a batch: {lost}") from lost

    def close(self) -> None:
        """End the worker, whatever it is at; what waits for it gets `ShuttingDownError`."""
        self.hang_up()
        if self._thread.is_alive():
            self._thread.join()

    def hang_up(self) -> None:
        """The part of `close` that takes no time."""
        with self._changed:
            self._closed, self._reason = True, "is closed"
            given, self._given = self._given, None
            if given is not None:
                given.outcome.set_exception(ShuttingDownError("the server is shutting down"))
            if self._process is not None:
                self._process.channel.hang_up()
            self._changed.notify_all()

    def exchange(self, work: Work, n_tokens: int) -> Logits:
        """Give a batch to a worker that is up, in turn, and wait for what becomes of it.

        Nothing here looks at the clock: whoever looks after the worker settles the outcome.
        """
        with self._turn:
            return self._exchange(work, n_tokens)

    def _exchange(self, work: Work, n_tokens: int) -> Logits:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._state != "starting")
            if self._closed:
                raise ShuttingDownError("the server is shutting down")
            if self._process is None or self._state == "failing":
                raise NotReadyError(f"worker {self.number} {self._reason}; try again later")
            given = self._given = _Given(n_tokens, time.monotonic())
            channel = self._process.channel
        try:
            channel.send(work)
        except OSError:
            logger.debug("worker %d was gone before its batch came", self.number)
        logits = given.outcome.result()
        self._patience.observe(time.monotonic() - given.since)
        return logits

    def _look_after(self) -> None:
        """Workers, one after the other, until it is closed."""
        while self._mourn(self._live()):
            self._on_restart()

    def _live(self) -> str:
        """A worker from its start to its end; returns why it came to it."""
        started = time.monotonic()
        assert self._start is not None  # noqa: S101 - the thread runs because there is one
        try:
            process = WorkerProcess(self._command, self._start, self._environment)
        except OSError as error:
            return f"could not be started ({error.strerror or type(error).__name__})"
        with self._changed:
            self._process, self._heard, self._pinged = process, started, None
            self._n_raised, self._given_up = 0, None
        try:
            return self._listen(process, started)
        finally:
            with self._changed:
                self._process = None
                if self._state == "up":
                    self._state, self._reason = "starting", "is being ended"
            process.end(self._limits.end if self._closed else 0.0)

    def _listen(self, process: WorkerProcess, started: float) -> str:
        refused: str | None = None
        while not self._closed:
            try:
                frame = process.channel.receive(_TICK_SECONDS)
                if isinstance(frame, Refused):
                    refused = f"refuses to start ({frame.code})"  # paths are for the log alone
                    if self.number or self.ready:  # else the server ends with this sentence
                        logger.error("worker %d refuses: %s", self.number, frame.message)
                if frame is not None:
                    self._take(frame)
                overdue = self._overdue(started)
            except (EOFError, OSError):
                return refused or process.last_words()
            except ValueError as error:
                return f"said what no worker says ({type(error).__name__})"
            if overdue is not None:
                return overdue
            if self._n_raised >= FAILURES_IN_A_ROW:
                return f"failed on {self._n_raised} batches in a row"
        return "is closed"

    def _take(self, frame: Report) -> None:
        """What a worker says."""
        if isinstance(frame, Log):
            message = f"worker {self.number}: {frame.message}"
            logging.getLogger(frame.logger).log(frame.level, "%s", message)
            return
        with self._changed:
            self._heard, self._pinged = time.monotonic(), None
            if isinstance(frame, Ready):
                self.ready, self._state, self._up_since = frame, "up", self._heard
                self._patience.seconds_per_token = frame.seconds_per_token
                self._changed.notify_all()
            elif isinstance(frame, Refused):
                self._refusal = refusal(frame)
                self._changed.notify_all()
        if isinstance(frame, Answer | Failed):
            self._settle(frame)

    def _settle(self, frame: Answer | Failed) -> None:
        outcome = _outcome(frame, self.number)  # first of all: it may not be what it should
        with self._changed:
            given, self._given = self._given, None
            if isinstance(frame, Answer):
                self._n_raised = 0
                self._setbacks.observe_answer()
            elif not frame.out_of_memory:
                self._n_raised += 1
        if given is None:
            return
        if isinstance(outcome, Exception):
            given.outcome.set_exception(outcome)
        else:
            given.outcome.set_result(outcome)

    def _overdue(self, started: float) -> str | None:
        """What a worker should have done by now; asks one that is idle for a sign of life."""
        now = time.monotonic()
        with self._changed:
            if self._given_up is not None:
                return self._given_up
            if self._state != "up":
                late = now - started > self._limits.start
                return f"was not ready after {self._limits.start:g} s" if late else None
            if self._given is not None:
                seconds = now - self._given.since
                over = self._patience.is_over(seconds, self._given.n_tokens)
                return f"made no progress for {seconds:.1f} s" if over else None
            if self._pinged is None:
                if now - self._heard > self._limits.stall / 2 and self._process is not None:
                    self._pinged = now
                    self._process.channel.send(Ping())  # it has read all else: there is room
                return None
            silent = now - self._pinged > self._limits.stall
            return f"gave no sign of life for {self._limits.stall:g} s" if silent else None

    def _mourn(self, reason: str) -> bool:
        """Tell who waits, and wait in turn, longer each time; False when that was all."""
        with self._changed:
            if self._closed:
                return False
            is_last = self.ready is None and self._refusal is not None
            self._count_failure(reason, is_last=is_last)
            given, self._given = self._given, None
            if given is not None:
                given.outcome.set_exception(_LostError(f"the last {reason}"))
            self._changed.notify_all()
        if is_last:
            return False  # whoever waits for the first worker is told, and gives up
        logger.error("worker %d %s", self.number, self._reason)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, self._setbacks.pause)
            return not self._closed

    def _count_failure(self, reason: str, *, is_last: bool) -> None:
        up_since, self._up_since = self._up_since, None
        if self._given_up is not None:
            up_since = None  # it was up for nothing
        self._setbacks.observe_end(None if up_since is None else time.monotonic() - up_since)
        if is_last or self._setbacks.is_lasting:
            self._state = "failing"
        n_failures = self._setbacks.n_failures
        self._reason = f"{reason}; another one is started"
        if n_failures > 1:
            self._reason = f"has failed {n_failures} times in a row: the last {reason}"


def _outcome(frame: Answer | Failed, number: int) -> Logits | Exception:
    """What a worker's answer comes to.

    Raises:
        ValueError: it is no logits.
    """
    if isinstance(frame, Answer):
        return np.frombuffer(frame.logits, dtype="<f4")
    if frame.out_of_memory:
        return MemoryError(f"worker {number} is out of memory")
    return InferenceError(f"the model failed on this request ({frame.kind})")
