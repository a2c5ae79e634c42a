"""How fast batches were computed lately: what waiting times are estimated from."""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

MEMORY_SECONDS = 60.0
"""Older batches say nothing about the speed of today."""
FEWEST_BATCHES = 3
"""Below this many, one slow batch could decide alone."""
_REMEMBERED_BATCHES = 64
_COMPARABLE = 1 / 4
"""Smaller batches say nothing of larger ones: their fixed cost makes each token slow."""


@dataclass(frozen=True, slots=True)
class _Observation:
    at: float
    n_tokens: int
    seconds: float


class DrainRate:
    """Tokens per second over the batches of the last minute.

    The rate is the median over tokens of the larger batches: neither one slow batch nor many tiny
    ones decide it.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._batches: deque[_Observation] = deque(maxlen=_REMEMBERED_BATCHES)

    def observe(self, n_tokens: int, seconds: float) -> None:
        """Count one batch; `seconds` without what it spent suspended."""
        if n_tokens > 0 and seconds > 0:
            self._batches.append(_Observation(self._clock(), n_tokens, seconds))

    @property
    def tokens_per_second(self) -> float | None:
        """None where no batch was observed in the last minute."""
        batches = self._recent()
        if not batches:
            return None
        smallest = max(one.n_tokens for one in batches) / 2
        return _median_speed([one for one in batches if one.n_tokens >= smallest])

    def seconds_for(self, n_tokens: int) -> float | None:
        """How long this many tokens take at this rate; None while it is unknown."""
        rate = self.tokens_per_second
        return None if rate is None else n_tokens / rate

    def sure_seconds_for(self, n_tokens: int, *, max_batch_tokens: int) -> float | None:
        """The same, where there is enough evidence to refuse a request by it.

        Args:
            n_tokens: What would be computed.
            max_batch_tokens: Tokens of the largest batch that they can be computed in.

        Returns:
            None where fewer than three batches of comparable size were observed.
        """
        comparable = _COMPARABLE * min(n_tokens, max_batch_tokens)
        batches = [one for one in self._recent() if one.n_tokens >= comparable]
        return n_tokens / _median_speed(batches) if len(batches) >= FEWEST_BATCHES else None

    def _recent(self) -> list[_Observation]:
        since = self._clock() - MEMORY_SECONDS
        while self._batches and self._batches[0].at < since:
            self._batches.popleft()
        return list(self._batches)


def _median_speed(batches: list[_Observation]) -> float:
    """Tokens per second at which half of the tokens, or more, were computed or slower."""
    fastest_first = sorted(batches, key=lambda one: one.seconds / one.n_tokens)
    tokens = list(accumulate(one.n_tokens for one in fastest_first))
    median = fastest_first[bisect_left(tokens, tokens[-1] / 2)]
    return median.n_tokens / median.seconds


class SuspensionClock:
    """Seconds in which this process did not run at all: stopped, frozen, its machine paused.

    Its event loop calls `tick` many times a second; what lies between two ticks beyond a second
    was not spent at work.

    Args:
        clock: Seconds, monotonic.
    """

    TICK_SECONDS = 0.25
    _USUAL_SECONDS = 1.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticked = clock()
        self._suspended = 0.0

    def tick(self) -> None:
        """Note that the process runs."""
        self._suspended, self._ticked = self.suspended_seconds, self._clock()

    @property
    def suspended_seconds(self) -> float:
        """Since it was made."""
        gap = self._clock() - self._ticked
        return self._suspended + (gap if gap > self._USUAL_SECONDS else 0.0)
