"""Scores from the cache, from a caller who is having them computed, or from the model.

Of equal pairs one is computed: of those in one request, and of those that several requests bring
at once (single flight). A follower recomputes if the leader fails or disconnects,
and does not wait for one that comes after it in the queue, nor for one that has more to compute
than it has itself: its turn comes earlier.
"""

import asyncio
import math
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tamis.cache.scores import ScoreCache
from tamis.errors import DeadlineExceededError
from tamis.timing import PhaseObserver
from tamis.types import CacheUse, PairScore


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """A pair that somebody is at.

    Attributes:
        landing: Its score; None says that it came to nothing.
        priority: Of who is at it; lower numbers go first.
        n_pairs: That are computed with it: their scores land together.
    """

    landing: "asyncio.Future[PairScore | None]"
    priority: int
    n_pairs: int


Flights = dict[bytes, _Flight]


class ReadThrough:
    """The cache in front of what computes. Belongs to one event loop.

    Args:
        cache: What is kept.
        timing: Hears how long looking there takes.
    """

    def __init__(self, cache: ScoreCache, timing: PhaseObserver | None = None) -> None:
        self.cache = cache
        self.timing = timing or PhaseObserver()
        self.flights: Flights = {}

    @contextmanager
    def look_up(
        self,
        keys: Mapping[int, bytes],
        *,
        deadline: float,
        priority: int = 0,
        use: CacheUse = "normal",
        uncut: bool = False,
    ) -> Generator["LookUp"]:
        """Look up a request's pairs; at the end those who wait for one that has no score go on.

        Args:
            keys: Of the pairs, by index; equal pairs have equal ones.
            deadline: When waiting for others ends, in seconds of `time.monotonic()`.
            priority: Nobody waits for who has a higher number.
            use: Whether to look, and whether to keep.
            uncut: Whether the score of a pair that was cut is no answer.
        """
        found = LookUp(self, keys, deadline, priority, use, uncut)
        try:
            yield found
        finally:
            found.leave()


@dataclass(slots=True, eq=False)
class LookUp:
    """A request's pairs, while their scores are found; `ReadThrough.look_up` makes it.

    `missing` says what to compute, `settle` takes it, until nothing is missing.

    Attributes:
        computed: The pairs that were computed for this request, by index.
    """

    through: ReadThrough
    keys: Mapping[int, bytes]
    deadline: float
    priority: int
    use: CacheUse
    uncut: bool
    computed: set[int] = field(init=False, default_factory=set[int])
    _first: dict[bytes, int] = field(init=False, default_factory=dict[bytes, int])
    _found: dict[bytes, PairScore] = field(init=False, default_factory=dict[bytes, PairScore])
    _own: Flights = field(init=False, default_factory=Flights)
    _others: Flights = field(init=False, default_factory=Flights)

    def __post_init__(self) -> None:
        for index, key in self.keys.items():
            self._first.setdefault(key, index)

    @property
    def scores(self) -> dict[int, PairScore]:
        """What became of each pair, by index, once nothing is missing."""
        return {index: self._found[key] for index, key in self.keys.items()}

    async def missing(self) -> list[int]:
        """Pairs that nobody has, or is at: to be computed now, of equal ones the first.

        Waits for what others are at once all else is done; where they fail, it is missing here.
        """
        while True:
            await self._wait_for_others()
            wanted = [key for key in self._first if key not in self._found]
            self._others = self._ahead(wanted)
            own = await self._not_kept([key for key in wanted if key not in self._others])
            if own or not self._others:
                return [self._first[key] for key in own]

    async def settle(self, scores: Mapping[int, PairScore], *, keep: bool) -> None:
        """Take what became of the pairs that were missing; followers get the scores, too.

        Args:
            scores: By index.
            keep: Whether they may be kept.
        """
        self.computed |= scores.keys()
        by_key = {self.keys[index]: score for index, score in scores.items()}
        self._found |= by_key
        computed = {key: score for key, score in by_key.items() if score.failure is None}
        if keep and self.use != "off":
            await self.through.cache.put_many(computed)
        self._land(computed)
        self.leave()

    def leave(self) -> None:
        """Stop computing: a follower that waits for a pair of this request computes it itself."""
        self._land(dict.fromkeys(list(self._own)))

    def _ahead(self, keys: Iterable[bytes]) -> Flights:
        """Pairs that somebody is at who goes no later than this request, and has no more pairs."""
        if self.use != "normal":
            return {}
        flights = self.through.flights
        return {
            key: flights[key]
            for key in keys
            if key in flights
            and flights[key].priority <= self.priority
            and flights[key].n_pairs <= len(self._first)
        }

    async def _not_kept(self, keys: list[bytes]) -> list[bytes]:
        """Be at some pairs, and look for them; returns those that must be computed."""
        if self.use != "normal" or not keys:
            return keys
        loop = asyncio.get_running_loop()
        self._own = {key: _Flight(loop.create_future(), self.priority, len(keys)) for key in keys}
        self.through.flights |= self._own
        with self.through.timing.phase("cache"):
            kept = await self.through.cache.get_many(keys)
        scores = {key: score for key, score in zip(keys, kept, strict=True) if score is not None}
        self._land(scores)
        self._found |= {key: score for key, score in scores.items() if self._is_answer(score)}
        return [key for key in keys if key not in self._found]

    def _is_answer(self, score: PairScore) -> bool:
        return not (self.uncut and (score.truncated or score.query_truncated))

    def _land(self, scores: Mapping[bytes, PairScore | None]) -> None:
        flights = self.through.flights
        for key in scores.keys() & self._own.keys():
            flight = self._own.pop(key)
            if flights.get(key) is flight:  # else one that goes earlier is at it, too
                del flights[key]
            flight.landing.set_result(scores[key])

    async def _wait_for_others(self) -> None:
        """Take what others have found, or that it came too late; nothing where they have failed."""
        others, self._others = self._others, {}
        if not others:
            return
        left = max(0.0, self.deadline - time.monotonic())
        landings = {key: one.landing for key, one in others.items()}
        await asyncio.wait(landings.values(), timeout=None if left == math.inf else left)
        late = PairScore.failed(DeadlineExceededError("the time for this request was over"))
        scores = {key: one.result() if one.done() else late for key, one in landings.items()}
        found = {
            key: score
            for key, score in scores.items()
            if score is not None and self._is_answer(score)
        }
        self._found |= found
        n_waited = sum(score.failure is None for score in found.values())
        self.through.cache.observer.waited(n_waited)
