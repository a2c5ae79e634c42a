"""One batch through a backend, whatever happens: every pair gets its logit or its reason.

All of it runs in the model thread and awaits nothing. A batch that fails is halved until the pairs
that fail are alone (2 log2 n passes for one bad pair among n). A batch that wants too much memory
is run in parts, and the token budget shrinks for a while.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tamis.engine.backend import Backend, Fault, SupervisedBackend
from tamis.engine.memory import is_out_of_memory, release_unused
from tamis.engine.pairs import EncodedPair, Logits
from tamis.errors import (
    InferenceError,
    OutOfMemoryError,
    TamisError,
    UnavailableError,
    UnscorableDocumentError,
)
from tamis.scheduler.jobs import Entry

logger = logging.getLogger(__name__)

SMALLEST_BUDGET = 64
REGROWTH = 1 / 16
"""Of the full budget, added after each batch that went well."""

FAILURES_UNTIL_STAND_IN = 3


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


class Observer:
    """What wants to know how batches fare; each method is called in the model thread."""

    def batch_done(self, report: BatchReport) -> None:
        """A forward pass went well."""

    def batch_failed(self) -> None:
        """A forward pass failed."""

    def pairs_failed(self, n_pairs: int) -> None:
        """So many pairs get no logit."""

    def out_of_memory(self) -> None:
        """A forward pass wanted more memory than there is."""

    def stand_in_took_over(self) -> None:
        """The backend was given up."""


class BatchRunner:
    """Runs batches on a backend, and on its stand-in where the backend cannot.

    Args:
        max_batch_tokens: The token budget while memory lasts.
        stand_in: Makes another backend (a CPU's for a GPU's), where there is one.
        known_good: A pair that the backend has scored, to tell a bad pair from a broken backend;
            the newest of all that it scores takes its place.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_batch_tokens: int,
        stand_in: Callable[[], Backend] | None = None,
        observer: Observer | None = None,
        known_good: EncodedPair | None = None,
    ) -> None:
        self._backend = backend
        self._full_budget = max_batch_tokens
        self._make_stand_in = stand_in
        self._stand_in: Backend | None = None
        self._observer = observer or Observer()
        self._known_good = known_good
        self._n_breakdowns = 0
        self._is_suspect = True
        self.max_batch_tokens = max_batch_tokens

    @property
    def degraded(self) -> str | None:
        """In which way it does less than it could; None while all is well."""
        if self.fault is not None:
            return "worker_down"
        if self._stand_in is self._backend:
            return "stand_in"
        return "less_memory" if self.max_batch_tokens < self._full_budget else None

    @property
    def fault(self) -> Fault | None:
        """Why it cannot run a batch now; None while it can, or must be tried."""
        backend = self._backend
        return backend.fault if isinstance(backend, SupervisedBackend) else None

    def wait_until_fit(self, seconds: float) -> None:
        """Return when it can run a batch, or after so many seconds."""
        if isinstance(self._backend, SupervisedBackend):
            self._backend.wait_until_fit(seconds)

    def run(self, entries: Sequence[Entry]) -> None:
        """Settle every pair of a batch."""
        budget, self._is_suspect = self.max_batch_tokens, True
        self._score(entries)
        if self.max_batch_tokens == budget < self._full_budget:
            grown = budget + max(1, int(self._full_budget * REGROWTH))
            self.max_batch_tokens = min(self._full_budget, grown)

    def close(self) -> None:
        """Close what it runs on."""
        for backend in {id(one): one for one in (self._backend, self._stand_in) if one}.values():
            backend.close()

    def _score(self, entries: Sequence[Entry]) -> None:
        """Settle some pairs, but those of jobs that nobody waits for any more."""
        entries = [entry for entry in entries if entry[0].is_wanted]
        if not entries:
            return
        try:
            logits = self._forward(self._backend, entries)
        except (
            UnavailableError
        ) as error:  # there is nothing to run it on: the pairs are not at fault
            self._fail(entries, error)
            return
        except Exception as error:  # noqa: BLE001 - of any kind: it must reach the callers it hits
            if is_out_of_memory(error):
                self._lack_memory(entries, error)
            else:
                self._isolate(entries, error)
            return
        self._n_breakdowns = 0
        self._settle(entries, logits)

    def _forward(self, backend: Backend, entries: Sequence[Entry]) -> Logits:
        pairs = [job.pairs[position] for job, position in entries]
        started = time.monotonic()
        logits = backend.forward(pairs)
        seconds = time.monotonic() - started
        if len(logits) != len(pairs):
            raise InferenceError(f"{len(logits)} logits came for {len(pairs)} pairs")
        n_tokens = sum(pair.n_tokens for pair in pairs)
        n_jobs = len({id(job) for job, _ in entries})
        self._observer.batch_done(BatchReport(len(pairs), n_tokens, n_jobs, seconds))
        return logits

    def _settle(self, entries: Sequence[Entry], logits: Logits) -> None:
        """Hand out the logits; one that is not finite never leaves, and is tried once alone."""
        for entry, logit in zip(entries, logits, strict=True):
            job, position = entry
            if np.isfinite(logit):
                self._known_good = job.pairs[position]
                job.give(position, float(logit))
            elif len(entries) > 1:
                self._score([entry])
            else:
                self._fail([entry], _unscorable(entry, "its logit is not a finite number"))

    def _isolate(self, entries: Sequence[Entry], error: Exception) -> None:
        """Find the pairs that fail; where one that was fine before fails too, none is at fault."""
        if self._is_suspect:
            self._observer.batch_failed()
            logger.error("a batch of %d pairs failed", len(entries), exc_info=error)
        if self._is_broken():
            self._break_down(entries, error)
        elif len(entries) > 1:
            self._score_halves(entries)
        elif self._known_good is None:
            self._fail(entries, _failure(error), error)
        else:
            self._fail(entries, _unscorable(entries[0], "the model fails on it"), error)

    def _is_broken(self) -> bool:
        """Whether even a pair that was scored before cannot be scored now; asked once a batch."""
        if self._known_good is None or not self._is_suspect:
            return False
        self._is_suspect = False
        try:
            return not np.isfinite(self._backend.forward([self._known_good])).all()
        except Exception:  # whatever it is, it is no single pair's
            logger.exception("the model fails on a pair that it has scored before")
            return True

    def _break_down(self, entries: Sequence[Entry], error: Exception) -> None:
        """The backend as a whole fails; when it keeps failing its stand-in takes over."""
        self._n_breakdowns += 1
        stand_in = self._open_stand_in() if self._n_breakdowns >= FAILURES_UNTIL_STAND_IN else None
        if stand_in is None or stand_in is self._backend:
            self._fail(entries, _failure(error), error)
            return
        self._observer.stand_in_took_over()
        logger.error("the model keeps failing on its device; another device takes over")
        self._backend.close()
        self._backend, self._n_breakdowns = stand_in, 0
        self._score(entries)

    def _lack_memory(self, entries: Sequence[Entry], error: Exception) -> None:
        """Free what can be freed, halve the budget and go on in parts."""
        self._observer.out_of_memory()
        release_unused()
        n_tokens = sum(job.pairs[position].n_tokens for job, position in entries)
        halved = min(self.max_batch_tokens, n_tokens) // 2
        self.max_batch_tokens = max(min(SMALLEST_BUDGET, self._full_budget), halved)
        logger.warning(
            "no memory for a batch of %d tokens; the budget is %d for now",
            *(n_tokens, self.max_batch_tokens),
        )
        if len(entries) > 1:
            self._score_halves(entries)
        else:
            self._score_elsewhere(entries, error)

    def _score_halves(self, entries: Sequence[Entry]) -> None:
        middle = len(entries) // 2
        self._score(entries[:middle])
        self._score(entries[middle:])

    def _score_elsewhere(self, entries: Sequence[Entry], error: Exception) -> None:
        """One pair that is too large for the device: the stand-in may have room."""
        stand_in = self._open_stand_in()
        if stand_in is not None and stand_in is not self._backend:
            try:
                self._settle(entries, self._forward(stand_in, entries))
            except Exception:  # it has no room either, or fails: the first error is the one told
                logger.exception("the stand-in cannot score it either")
            else:
                return
        job, position = entries[0]
        self._fail(
            entries,
            OutOfMemoryError(
                f"document {job.index_of(position)} has {job.pairs[position].n_tokens:,} tokens "
                "with its query, more than any device here has the memory for"
            ),
            error,
        )

    def _open_stand_in(self) -> Backend | None:
        make, self._make_stand_in = self._make_stand_in, None
        if make is not None:
            try:
                self._stand_in = make()
            except TamisError:
                logger.exception("there is no other device to take over")
        return self._stand_in

    def _fail(
        self, entries: Sequence[Entry], error: TamisError, cause: Exception | None = None
    ) -> None:
        error.__cause__ = cause
        self._observer.pairs_failed(len(entries))
        for job, position in entries:
            job.give(position, error)


def _unscorable(entry: Entry, why: str) -> UnscorableDocumentError:
    job, position = entry
    return UnscorableDocumentError(f"document {job.index_of(position)} cannot be scored: {why}")


def _failure(error: Exception) -> InferenceError:
    if isinstance(error, InferenceError):
        return error
    return InferenceError(f"the model failed on this request ({type(error).__name__})")
