"""When a batch takes so long that its model counts as hung."""

import time
from collections import deque
from collections.abc import Sequence

from tamis.engine.backend import Backend, Fault
from tamis.engine.padding import Padding, padding_of
from tamis.engine.pairs import EncodedPair, Logits

STALL_FACTOR = 5
"""How many times longer than usual a batch may take."""
_REMEMBERED_BATCHES = 500
_USUAL_QUANTILE = 0.99


class StallDetector:
    """Computes the longest time a batch may take.

    That is the longest of three: a floor, five times the p99 of recent batches, and five times the
    warm-up's time per token. The last one is for the first batches on a slow machine, when there is
    no p99 yet.

    Args:
        floor_seconds: The floor.
        seconds_per_token: Measured during the model's warm-up.
    """

    def __init__(self, floor_seconds: float, seconds_per_token: float = 0.0) -> None:
        self.floor_seconds = floor_seconds
        self.seconds_per_token = seconds_per_token
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED_BATCHES)

    def observe(self, seconds: float) -> None:
        """Record the time of a finished batch."""
        self._seconds.append(seconds)

    def is_stalled(self, seconds: float, n_tokens: int) -> bool:
        """Whether a batch that has been running this long counts as hung."""
        return seconds > self.floor_seconds and seconds > self.limit_seconds(n_tokens)

    def limit_seconds(self, n_tokens: int) -> float:
        """How long a batch may take."""
        slowest = sorted(self._seconds.copy())  # the copy: another thread observes
        usual = slowest[int(_USUAL_QUANTILE * (len(slowest) - 1))] if slowest else 0.0
        estimate = self.seconds_per_token * n_tokens
        return max(self.floor_seconds, STALL_FACTOR * usual, STALL_FACTOR * estimate)


class WatchedBackend:
    """A backend in this process whose stalls are detected.

    A thread that hangs cannot be stopped, but the server can report it and be restarted.
    """

    def __init__(self, backend: Backend, stalls: StallDetector) -> None:
        self._backend = backend
        self._stalls = stalls
        self._running: tuple[float, int] | None = None

    @property
    def fault(self) -> Fault | None:
        """Say that the model hangs; in this process it cannot be restarted."""
        running = self._running
        if running is None:
            return None
        since, n_tokens = running
        seconds = time.monotonic() - since
        if not self._stalls.is_stalled(seconds, n_tokens):
            return None
        return Fault(f"the model has made no progress for {seconds:.0f} s", is_lasting=True)

    @property
    def padding(self) -> Padding:
        return padding_of(self._backend)

    def wait_until_available(self, seconds: float) -> None:
        """Return at once: waiting does not help."""

    def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
        started = time.monotonic()
        self._running = started, sum(pair.n_tokens for pair in pairs)
        try:
            logits = self._backend.forward(pairs)
        finally:
            self._running = None
        self._stalls.observe(time.monotonic() - started)
        return logits

    def close(self) -> None:
        self._backend.close()
