"""A breaker: stops asking what keeps failing, and finds out by itself when it works again."""

from collections import deque
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]


class Breaker:
    """Closed it lets every call through, open none, half open a single one: the trial.

    Enough failures within a time window open it. After a while it is half open, and the trial's
    outcome closes or opens it again. A trial that never reports counts as lost after the
    same while.
    It has no clock and never waits: callers say what time it is, in seconds of any monotonic clock.
    """

    def __init__(
        self, *, n_failures: int = 5, within_seconds: float = 10.0, open_seconds: float = 5.0
    ) -> None:
        self._within_seconds = within_seconds
        self._open_seconds = open_seconds
        self._failures: deque[float] = deque(maxlen=n_failures)
        self._next_trial: float | None = None
        self._on_trial = False
        self._ticket = 0

    @property
    def state(self) -> BreakerState:
        """Where it stands; it stays open until somebody asks to be let through."""
        if self._next_trial is None:
            return "closed"
        return "half_open" if self._on_trial else "open"

    def admit(self, now: float) -> int | None:
        """A ticket to report the call's outcome with, or None where it must not be made."""
        if self._next_trial is None:
            return self._ticket
        if now < self._next_trial:
            return None
        self._turn(next_trial=now + self._open_seconds, on_trial=True)
        return self._ticket

    def succeed(self, ticket: int) -> None:
        """The call of this ticket went well."""
        if ticket == self._ticket and self._on_trial:
            self._turn(next_trial=None, on_trial=False)

    def fail(self, ticket: int, now: float) -> None:
        """The call of this ticket failed.

        What was asked before the breaker last turned says nothing of how things are now, and
        changes nothing; that goes for `succeed`, too.
        """
        if ticket != self._ticket:
            return
        self._failures.append(now)
        is_full = len(self._failures) == self._failures.maxlen
        if self._on_trial or (is_full and now - self._failures[0] <= self._within_seconds):
            self._turn(next_trial=now + self._open_seconds, on_trial=False)

    def _turn(self, *, next_trial: float | None, on_trial: bool) -> None:
        self._next_trial = next_trial
        self._on_trial = on_trial
        self._failures.clear()
        self._ticket += 1
