"""One batch through a backend, whatever happens: every pair gets its logit or its reason.

All of it runs in the model thread and awaits nothing. A batch that fails is halved until the pairs
that fail are alone (2 log2 n passes for one bad pair among n). A batch that wants too much memory
is run in parts, and the token budget shrinks for a while. A logit that is no number is computed
again: alone, then in float32.
"""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np

from tamis.engine.backend import Backend, Fault, RestartableBackend, SupervisedBackend
from tamis.engine.memory import is_out_of_memory, release_unused
from tamis.engine.padding import count_places, padding_of
from tamis.engine.pairs import EncodedPair, Logits
from tamis.errors import (
    DeviceLostError,
    InferenceError,
    OutOfMemoryError,
    TamisError,
    UnavailableError,
    UnscorableDocumentError,
)
from tamis.scheduler.jobs import Entry
from tamis.scheduler.observer import BatchObserver, BatchReport

logger = logging.getLogger(__name__)

SMALLEST_BUDGET = 64
REGROWTH = 1 / 16
"""Of the full budget, added after each batch that went well."""

FAILURES_UNTIL_STAND_IN = 3


MakeBackend = Callable[[], Backend | None]


class Spare:
    """A backend that is made when it is first wanted, and once. Any thread may ask for it.

    Args:
        make: Makes it; None says that there is none.
    """

    def __init__(self, make: MakeBackend) -> None:
        self._make: MakeBackend | None = make
        self._making = Lock()
        self.backend: Backend | None = None

    @property
    def can_be_had(self) -> bool:
        """Whether it is there, or has not been tried."""
        return self.backend is not None or self._make is not None

    def open(self) -> Backend | None:
        """The backend; None where it could not be made."""
        with self._making:
            make, self._make = self._make, None
            if make is not None:
                try:
                    self.backend = make()
                except Exception:  # of any kind: without it things are as they were
                    logger.exception("the model cannot be loaded a second time, to stand in")
            return self.backend


class BatchRunner:
    """Runs batches on a backend, and on its fallback where the backend cannot.

    Args:
        max_batch_tokens: The token budget while memory lasts.
        stand_in: Makes another backend (a CPU's for a GPU's), where there is one.
        in_float32: Makes one that computes in float32, where the backend computes in less; may
            be `stand_in` itself, which is then made once.
        known_good: A pair that the backend has scored, to tell a bad pair from a broken backend;
            a shorter one that it scores takes its place.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_batch_tokens: int,
        stand_in: MakeBackend | None = None,
        in_float32: MakeBackend | None = None,
        observer: BatchObserver | None = None,
        known_good: EncodedPair | None = None,
    ) -> None:
        self._backend = backend
        self._full_budget = max_batch_tokens
        self._stand_in = None if stand_in is None else Spare(stand_in)
        self._in_float32 = None if in_float32 is None else Spare(in_float32)
        if in_float32 is stand_in:
            self._in_float32 = self._stand_in
        self._observer = observer or BatchObserver()
        self._known_good = known_good
        self._n_breakdowns = 0
        self._is_suspect = True
        self._is_restarted = False
        self.max_batch_tokens = max_batch_tokens

    @property
    def degraded(self) -> str | None:
        """In which way it does less than it could; None while all is well."""
        if self.fault is not None:
            return "worker_down"
        if self._stand_in is not None and self._stand_in.backend is self._backend:
            return "stand_in"
        if self._n_breakdowns >= FAILURES_UNTIL_STAND_IN:
            return "failing"
        return "less_memory" if self.max_batch_tokens < self._full_budget else None

    @property
    def fault(self) -> Fault | None:
        """Why it cannot run a batch now; None while it can, or must be tried."""
        backend = self._backend
        return backend.fault if isinstance(backend, SupervisedBackend) else None

    def wait_until_available(self, seconds: float) -> None:
        """Return when it can run a batch, or after a timeout."""
        if isinstance(self._backend, SupervisedBackend):
            self._backend.wait_until_available(seconds)

    def run(self, entries: Sequence[Entry]) -> None:
        """Settle every pair of a batch."""
        budget, self._is_suspect, self._is_restarted = self.max_batch_tokens, True, False
        self._score(entries)
        if self.max_batch_tokens == budget < self._full_budget:
            grown = budget + max(1, int(self._full_budget * REGROWTH))
            self.max_batch_tokens = min(self._full_budget, grown)

    def close(self) -> None:
        """Close what it runs on."""
        spares = [spare.backend for spare in (self._stand_in, self._in_float32) if spare]
        for backend in {id(one): one for one in (self._backend, *spares) if one}.values():
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
        invalid = self._give(entries, logits)
        if len(invalid) < len(entries):
            self._n_breakdowns = 0
        if invalid:
            self._compute_again(invalid, entries)

    def _forward(self, backend: Backend, entries: Sequence[Entry]) -> Logits:
        pairs = [job.pairs[position] for job, position in entries]
        started = time.monotonic()
        logits = backend.forward(pairs)
        seconds = time.monotonic() - started
        if len(logits) != len(pairs):
            raise InferenceError(f"{len(logits)} logits came for {len(pairs)} pairs")
        n_tokens = sum(pair.n_tokens for pair in pairs)
        n_jobs = len({id(job) for job, _ in entries})
        places = count_places(pairs, padding_of(backend))
        self._observer.batch_done(BatchReport(len(pairs), n_tokens, n_jobs, seconds, *places))
        return logits

    def _give(self, entries: Sequence[Entry], logits: Logits) -> list[Entry]:
        """Hand out the logits; returns whose are not finite: those never leave."""
        invalid: list[Entry] = []
        for entry, logit in zip(entries, logits, strict=True):
            job, position = entry
            if np.isfinite(logit):
                job.give(position, float(logit))
                self._known_good = _shorter(self._known_good, job.pairs[position])
            else:
                invalid.append(entry)
        return invalid

    def _compute_again(self, invalid: Sequence[Entry], batch: Sequence[Entry]) -> None:
        """Pairs of a batch whose logits were not finite: alone, and then in float32.

        Where none of the batch is finite, and none of a pair that was, the backend is broken.
        """
        self._observer.logits_not_finite(len(invalid))
        if len(invalid) == len(batch) and self._is_broken():
            self._break_down(invalid, InferenceError("the model returns no finite numbers"))
        elif len(batch) > 1:
            for entry in invalid:
                self._score([entry])
        else:
            self._score_in_float32(batch)

    def _score_in_float32(self, entries: Sequence[Entry]) -> None:
        """One pair for which less precision has no number: it may be out of float16's range."""
        precise = self._in_float32.open() if self._in_float32 else None
        if precise is None or precise is self._backend or not self._score_on(precise, entries):
            self._fail(entries, _unscorable(entries[0], "its logit is not a finite number"))

    def _score_on(self, spare: Backend, entries: Sequence[Entry]) -> bool:
        """Settle pairs with another backend; False, and nothing is settled, where it cannot."""
        try:
            logits = self._forward(spare, entries)
        except Exception:  # it fails as well: the first failure is the one that is told
            logger.exception("the fallback cannot score it either")
            return False
        if not np.isfinite(logits).all():
            return False
        for (job, position), logit in zip(entries, logits, strict=True):
            job.give(position, float(logit))  # and is no pair that the backend has scored
        return True

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
        except UnavailableError:  # there is nothing to ask
            return False
        except Exception:  # whatever it is, it is no single pair's
            logger.exception("the model fails on a pair that it has scored before")
            return True

    def _break_down(self, entries: Sequence[Entry], error: Exception) -> None:
        """The backend as a whole fails: another takes over, or will."""
        if self._leave_backend() or self._restart_backend():
            self._score(entries)
        elif self._is_restarted or self._can_be_left():
            self._fail(entries, DeviceLostError("the model's device fails; try again soon"), error)
        else:
            self._fail(entries, _failure(error), error)

    def _can_be_left(self) -> bool:
        spare = self._stand_in
        return spare is not None and spare.can_be_had and spare.backend is not self._backend

    def _leave_backend(self) -> bool:
        """Count a breakdown; when the backend keeps failing, its fallback takes over for good."""
        self._n_breakdowns += 1
        if self._stand_in is None or self._n_breakdowns < FAILURES_UNTIL_STAND_IN:
            return False
        stand_in = self._stand_in.open()
        if stand_in is None or stand_in is self._backend:
            return False
        left, self._backend, self._n_breakdowns = self._backend, stand_in, 0
        self._observer.stand_in_took_over()
        logger.error("the model keeps failing on its device; another device takes over")
        try:
            left.close()
        except Exception:  # of a device that is lost nothing can be given back
            logger.exception("the model cannot be taken off the device that failed")
        return True

    def _restart_backend(self) -> bool:
        """Have the backend restarted, once per batch, so that the batch can be retried."""
        if self._is_restarted or not isinstance(self._backend, RestartableBackend):
            return False
        self._is_restarted = self._is_suspect = True
        self._backend.restart("fails on what it has scored before")
        return True

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
        elif self._is_broken() and self._leave_backend():  # it has no room for any pair any more
            self._score(entries)
        else:
            self._score_elsewhere(entries, error)

    def _score_halves(self, entries: Sequence[Entry]) -> None:
        middle = len(entries) // 2
        self._score(entries[:middle])
        self._score(entries[middle:])

    def _score_elsewhere(self, entries: Sequence[Entry], error: Exception) -> None:
        """One pair that is too large for the device: the fallback may have room."""
        stand_in = self._stand_in.open() if self._stand_in else None
        if stand_in is None or stand_in is self._backend or not self._score_on(stand_in, entries):
            job, position = entries[0]
            self._fail(
                entries,
                OutOfMemoryError(
                    f"document {job.index_of(position)} has {job.pairs[position].n_tokens:,} "
                    "tokens with its query, more than any device here has the memory for"
                ),
                error,
            )

    def _fail(
        self, entries: Sequence[Entry], error: TamisError, cause: Exception | None = None
    ) -> None:
        error.__cause__ = cause
        self._observer.pairs_failed(len(entries))
        for job, position in entries:
            job.fail(position, error)


def _shorter(known: EncodedPair | None, pair: EncodedPair) -> EncodedPair:
    return pair if known is None or pair.n_tokens < known.n_tokens else known


def _unscorable(entry: Entry, why: str) -> UnscorableDocumentError:
    job, position = entry
    return UnscorableDocumentError(f"document {job.index_of(position)} cannot be scored: {why}")


def _failure(error: Exception) -> InferenceError:
    if isinstance(error, InferenceError):
        return error
    return InferenceError(f"the model failed on this request ({type(error).__name__})")
