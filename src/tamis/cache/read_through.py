"""Scores from the cache, from a caller who is having them computed, or from the model.

Of equal pairs one is computed: of those in one request, and of those that several requests bring
at once (single flight). A follower recomputes if the leader fails or disconnects,
and does not wait for one that comes after it in the queue, nor for one that has more to compute
than it has itself: its turn comes earlier.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tamis.cache.scores import ScoreCache
from tamis.cache.values import PairScore
from tamis.engine.pairs import first_places
from tamis.errors import DeadlineExceededError, TamisError
from tamis.timing import PhaseObserver
from tamis.types import CacheUse

Outcome = PairScore | TamisError
Compute = Callable[[list[int]], Awaitable[list[Outcome]]]
"""Scores the pairs at some positions, in their order."""


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request wants of the cache; see `ReadThrough.scores`."""

    deadline: float
    priority: int
    use: CacheUse
    usable: Callable[[PairScore], bool]
    keeps: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a pair.

    Attributes:
        is_cached: Nothing was computed for it.
    """

    outcome: Outcome
    is_cached: bool


class ReadThrough:
    """The cache in front of what computes. Belongs to one event loop.

    Args:
        cache: What is kept.
        timing: Hears how long looking there takes.
    """

    def __init__(self, cache: ScoreCache, timing: PhaseObserver | None = None) -> None:
        self._cache = cache
        self._timing = timing or PhaseObserver()
        self._flights: Flights = {}

    async def scores(
        self,
        keys: Sequence[bytes],
        compute: Compute,
        *,
        deadline: float,
        priority: int = 0,
        use: CacheUse = "normal",
        usable: Callable[[PairScore], bool] = lambda _: True,
        keeps: Callable[[], bool] = lambda: True,
    ) -> list[Answered]:
        """What became of each pair, in the order of the keys.

        Args:
            keys: Of the pairs; equal pairs have equal ones.
            compute: Is asked for what nobody has; what it raises is raised.
            deadline: When waiting for others ends, in seconds of `time.monotonic()`.
            priority: Nobody waits for who has a higher number.
            use: Whether to look, and whether to keep.
            usable: Whether what is kept is an answer to this request.
            keeps: Asked once all is computed: whether that may be kept.
        """
        asked = _Asked(deadline, priority, use, usable, keeps)
        first = first_places(keys)
        found: dict[bytes, Outcome] = {}
        computed: set[int] = set()
        while missing := {key: place for key, place in first.items() if key not in found}:
            others = self._ahead(missing, priority, len(first)) if use == "normal" else {}
            if own := {key: place for key, place in missing.items() if key not in others}:
                outcomes, places = await self._own(own, compute, asked)
                found |= outcomes
                computed |= places
            if others:
                found |= await self._others(others, asked)
        return [Answered(found[key], position not in computed) for position, key in enumerate(keys)]

    def _ahead(self, keys: Iterable[bytes], priority: int, n_pairs: int) -> Flights:
        """Pairs that somebody is at who goes no later than this priority, and has no more pairs."""
        flights = {key: self._flights[key] for key in keys if key in self._flights}
        return {
            key: one
            for key, one in flights.items()
            if one.priority <= priority and one.n_pairs <= n_pairs
        }

    async def _own(
        self, wanted: dict[bytes, int], compute: Compute, asked: _Asked
    ) -> tuple[dict[bytes, Outcome], set[int]]:
        """Look for pairs that nobody else is at, or only who goes later; have the rest computed.

        Who waits for one gets its score as soon as there is one, or None.

        Returns:
            What became of each, and the positions that were computed.
        """
        flights: Flights = {}
        if asked.use == "normal":
            loop = asyncio.get_running_loop()
            flights = {
                key: _Flight(loop.create_future(), asked.priority, len(wanted)) for key in wanted
            }
            self._flights |= flights
        try:
            kept = await self._kept(list(wanted)) if asked.use == "normal" else {}
            self._land(flights, kept)
            known: dict[bytes, Outcome] = {k: one for k, one in kept.items() if asked.usable(one)}
            unknown = {key: place for key, place in wanted.items() if key not in known}
            outcomes = await compute(list(unknown.values())) if unknown else []
            computed = dict(zip(unknown, outcomes, strict=True))
            scores = {key: one for key, one in computed.items() if isinstance(one, PairScore)}
            if asked.use != "off" and asked.keeps():
                await self._cache.put_many(scores)
            self._land(flights, scores)
        finally:
            self._land(flights, dict.fromkeys(list(flights)))
        return known | computed, set(unknown.values())

    async def _kept(self, keys: list[bytes]) -> dict[bytes, PairScore]:
        with self._timing.phase("cache"):
            scores = await self._cache.get_many(keys)
        return {key: score for key, score in zip(keys, scores, strict=True) if score is not None}

    def _land(self, flights: Flights, scores: Mapping[bytes, PairScore | None]) -> None:
        for key in scores.keys() & flights.keys():
            flight = flights.pop(key)
            if self._flights.get(key) is flight:  # else one that goes earlier is at it, too
                del self._flights[key]
            flight.landing.set_result(scores[key])

    async def _others(self, others: Flights, asked: _Asked) -> dict[bytes, Outcome]:
        """What others have found, or that it came too late; nothing where they have failed."""
        left = max(0.0, asked.deadline - time.monotonic())
        landings = {key: one.landing for key, one in others.items()}
        await asyncio.wait(landings.values(), timeout=None if left == math.inf else left)
        late = DeadlineExceededError("the time for this request was over")
        outcomes = {key: one.result() if one.done() else late for key, one in landings.items()}
        found: dict[bytes, Outcome] = {
            key: one
            for key, one in outcomes.items()
            if isinstance(one, TamisError) or (one is not None and asked.usable(one))
        }
        self._cache.observer.waited(sum(isinstance(one, PairScore) for one in found.values()))
        return found
