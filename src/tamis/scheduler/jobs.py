"""A request's pairs on their way through the scheduler: jobs and batches of them. Plain data."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tamis.engine.pairs import EncodedPair
from tamis.errors import TamisError
from tamis.timing import BatchRun
from tamis.types import PairScore

OPEN = PairScore(math.nan, 0, truncated=False)
"""Of a pair that has neither a logit nor a failure yet."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a caller's pairs are scored.

    Attributes:
        caller: The caller's name; callers share the model evenly.
        priority: Lower numbers of the same caller go first.
        deadline: When the answer must be there, in seconds of `time.monotonic()`.
        partial: Whether what has been scored by then, or could be, is answer enough.
        max_caller_tokens: Tokens this caller may have waiting or running; None for no such bound.
    """

    caller: str = ""
    priority: int = 0
    deadline: float = math.inf
    partial: bool = False
    max_caller_tokens: int | None = None


@dataclass(slots=True, eq=False)
class Job:
    """All pairs of one request, and what has become of them so far.

    Attributes:
        indices: What the caller calls each pair; its position where None.
        waiting: Positions of pairs no batch has taken, longest first: pairs of like length
            share a batch, and what attention pads inside it stays small.
        scores: What became of each pair; `OPEN` until it is settled.
        n_waiting_tokens: Tokens of the pairs no batch has taken.
        n_unsettled: Pairs that are open.
        has_failed: Whether a pair has failed.
        began: When its first batch began, in seconds of `time.monotonic()`.
        runs: The batches it had pairs in, as they were done.
        is_wanted: False once nobody waits for it any more.
        turn_tokens: What it got since it last went behind others.
    """

    pairs: Sequence[EncodedPair]
    terms: Terms = Terms()
    indices: Sequence[int] | None = None
    n_tokens: int = field(init=False)
    waiting: deque[int] = field(init=False)
    n_waiting_tokens: int = field(init=False)
    scores: list[PairScore] = field(init=False)
    n_unsettled: int = field(init=False)
    has_failed: bool = field(init=False, default=False)
    is_wanted: bool = field(init=False, default=True)
    turn_tokens: int = field(init=False, default=0)
    began: float | None = field(init=False, default=None)
    runs: list[BatchRun] = field(init=False, default_factory=list[BatchRun])

    def __post_init__(self) -> None:
        lengths = [pair.n_tokens for pair in self.pairs]
        self.n_tokens = self.n_waiting_tokens = sum(lengths)
        self.waiting = deque(sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)))
        self.scores = [OPEN] * len(lengths)
        self.n_unsettled = len(lengths)

    @property
    def next_tokens(self) -> int:
        """Tokens of the pair that is taken next."""
        return self.pairs[self.waiting[0]].n_tokens

    def take_next(self) -> int:
        """The position of the pair whose turn it is; it waits no more."""
        position = self.waiting.popleft()
        self.n_waiting_tokens -= self.pairs[position].n_tokens
        return position

    def take_nothing_more(self) -> None:
        """Leave no pair waiting."""
        self.waiting.clear()
        self.n_waiting_tokens = 0

    @property
    def settled(self) -> bool:
        """Every pair has its logit or its failure."""
        return not self.n_unsettled

    def index_of(self, position: int) -> int:
        """What the caller calls a pair."""
        return position if self.indices is None else int(self.indices[position])

    def give(self, position: int, logit: float) -> None:
        """Settle one pair with its logit."""
        pair = self.pairs[position]
        self._settle(
            position, PairScore(logit, pair.n_tokens, pair.truncated, pair.query_truncated)
        )

    def fail(self, position: int, failure: TamisError) -> None:
        """Settle one pair with the reason why it has no logit."""
        self._settle(position, PairScore.failed(failure))
        self.has_failed = True

    def _settle(self, position: int, score: PairScore) -> None:
        self.scores[position] = score
        self.n_unsettled -= 1


Entry = tuple[Job, int]
"""A job and the position of one of its pairs."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pairs for one forward pass."""

    entries: tuple[Entry, ...]

    @property
    def pairs(self) -> list[EncodedPair]:
        """The pairs, in the order of the entries."""
        return [job.pairs[position] for job, position in self.entries]

    @property
    def n_tokens(self) -> int:
        """Tokens of all pairs."""
        return sum(pair.n_tokens for pair in self.pairs)

    @property
    def jobs(self) -> list[Job]:
        """The jobs it serves, each once."""
        return list(dict.fromkeys(job for job, _ in self.entries))
