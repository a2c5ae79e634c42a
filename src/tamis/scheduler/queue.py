"""Jobs waiting for the model: plain data, no await, no clock."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tamis.engine.pairs import EncodedPair, Logits
from tamis.errors import QueueFullError, RequestTooLargeError


@dataclass(slots=True, eq=False)
class Job:
    """All pairs of one request, and the logits they have got so far.

    Attributes:
        waiting: Positions of pairs no batch has taken, longest first: pairs of like length
            share a batch, and what attention pads inside it stays small.
        n_unscored: Pairs without a logit yet.
        error: What ended the job before all its pairs were scored.
    """

    pairs: Sequence[EncodedPair]
    waiting: deque[int] = field(init=False)
    logits: Logits = field(init=False)
    n_unscored: int = field(init=False)
    error: Exception | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        lengths = [pair.n_tokens for pair in self.pairs]
        self.waiting = deque(sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)))
        self.logits = np.full(len(lengths), np.nan, dtype=np.float32)
        self.n_unscored = len(lengths)

    @property
    def n_tokens(self) -> int:
        """Tokens of all its pairs."""
        return sum(pair.n_tokens for pair in self.pairs)

    @property
    def finished(self) -> bool:
        """Every pair has its logit, or the job has failed."""
        return self.error is not None or not self.n_unscored


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pairs for one forward pass: (job, position in the job) each."""

    entries: tuple[tuple[Job, int], ...]

    @property
    def pairs(self) -> list[EncodedPair]:
        """The pairs, in the order of the entries."""
        return [job.pairs[position] for job, position in self.entries]

    @property
    def jobs(self) -> list[Job]:
        """The jobs it serves, each once."""
        return list(dict.fromkeys(job for job, _ in self.entries))

    def only(self, job: Job) -> "Batch":
        """The part of it that belongs to one job."""
        return Batch(tuple(entry for entry in self.entries if entry[0] is job))

    def deliver(self, logits: Logits) -> None:
        """Hand each job its logits, (n_pairs,) in the order of the entries.

        Raises:
            ValueError: there are more or fewer logits than pairs; no job gets any then.
        """
        if len(logits) != len(self.entries):
            raise ValueError(f"{len(logits)} logits came for {len(self.entries)} pairs")
        for (job, position), logit in zip(self.entries, logits, strict=True):
            job.logits[position] = logit
            job.n_unscored -= 1


class PairQueue:
    """Jobs in turn, bounded in tokens.

    A batch is filled from the job at the head; a job that still has pairs then goes to the
    end, so that a small job waits for one batch of each job before it, not for all of theirs.
    A job whose next pair does not fit into what is left of a batch keeps its place.
    """

    def __init__(self, *, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._jobs: deque[Job] = deque()
        self._n_tokens = 0

    @property
    def n_tokens(self) -> int:
        """Tokens admitted and not yet released: waiting or running."""
        return self._n_tokens

    @property
    def n_jobs(self) -> int:
        """Jobs with pairs that no batch has taken."""
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Admit all of a job or none of it.

        Raises:
            QueueFullError: there is no room now.
            RequestTooLargeError: there is never room for so many tokens.
        """
        n_tokens = job.n_tokens
        if n_tokens > self._max_tokens:
            raise RequestTooLargeError(
                f"the request has {n_tokens:,} tokens, at most {self._max_tokens:,} may wait; "
                "split the request"
            )
        if self._n_tokens + n_tokens > self._max_tokens:
            raise QueueFullError(
                f"{self._n_tokens:,} tokens are waiting or running and {n_tokens:,} more came, "
                f"at most {self._max_tokens:,} may; try again later"
            )
        self._n_tokens += n_tokens
        if job.waiting:
            self._jobs.append(job)

    def remove(self, job: Job) -> None:
        """Take out a job's waiting pairs and release its tokens; called once for each job."""
        self._n_tokens -= job.n_tokens
        job.waiting.clear()
        if job in self._jobs:
            self._jobs.remove(job)

    def take(self, max_tokens: int) -> Batch | None:
        """The next batch, at most `max_tokens` (a longer pair goes alone); None when empty."""
        entries: list[tuple[Job, int]] = []
        passed: list[Job] = []
        room = max_tokens
        for _ in range(len(self._jobs)):
            job = self._jobs.popleft()
            n_before = len(entries)
            room = _fill(entries, job, room)
            if job.waiting:
                (self._jobs if len(entries) > n_before else passed).append(job)
            if room <= 0:
                break
        self._jobs.extendleft(reversed(passed))
        return Batch(tuple(entries)) if entries else None


def _fill(entries: list[tuple[Job, int]], job: Job, room: int) -> int:
    """Move pairs of a job into a batch while they fit; returns the room that is left."""
    while job.waiting:
        n_tokens = job.pairs[job.waiting[0]].n_tokens
        if entries and n_tokens > room:
            return room
        entries.append((job, job.waiting.popleft()))
        room -= n_tokens
    return room
