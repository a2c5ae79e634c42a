"""How long a batch may take before its model counts as hung."""

import time
from collections import deque
from collections.abc import Sequence

from tamis.engine.backend import Backend, Fault
from tamis.engine.padding import Padding, padding_of
from tamis.engine.pairs import EncodedPair, Logits

TIMES_USUAL = 5
_REMEMBERED = 500
_SLOWEST = 0.99


class Patience:
    """The longest of a floor, five times the p99 of late, and five times what the warm-up says.

    The last is for the first batches of a slow machine, of which there is no p99 yet.

    Args:
        least_seconds: The floor.
        seconds_per_token: What the model took for its warm-up.
    """

    def __init__(self, least_seconds: float, seconds_per_token: float = 0.0) -> None:
        self.least_seconds = least_seconds
        self.seconds_per_token = seconds_per_token
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)

    def observe(self, seconds: float) -> None:
        """A batch that came to its end."""
        self._seconds.append(seconds)

    def is_over(self, seconds: float, n_tokens: int) -> bool:
        """Whether a batch of so many tokens, given so long ago, will never come back."""
        return seconds > self.least_seconds and seconds > self.limit(n_tokens)

    def limit(self, n_tokens: int) -> float:
        """Seconds that a batch of so many tokens may take."""
        slowest = sorted(self._seconds.copy())  # the copy: another thread observes
        usual = slowest[int(_SLOWEST * (len(slowest) - 1))] if slowest else 0.0
        estimate = self.seconds_per_token * n_tokens
        return max(self.least_seconds, TIMES_USUAL * usual, TIMES_USUAL * estimate)


class WatchedBackend:
    """A backend in this process, and since when it has been at its batch.

    Nothing can end a thread that hangs; but the process can say so, and be ended.
    """

    def __init__(self, backend: Backend, patience: Patience) -> None:
        self._backend = backend
        self._patience = patience
        self._given: tuple[float, int] | None = None

    @property
    def fault(self) -> Fault | None:
        """See `SupervisedBackend.fault`: a model that hangs hangs for good."""
        given = self._given
        if given is None:
            return None
        since, n_tokens = given
        seconds = time.monotonic() - since
        if not self._patience.is_over(seconds, n_tokens):
            return None
        return Fault(f"the model has made no progress for {seconds:.0f} s", is_lasting=True)

    @property
    def padding(self) -> Padding:
        """See `PaddingBackend.padding`."""
        return padding_of(self._backend)

    def wait_until_fit(self, seconds: float) -> None:
        """See `SupervisedBackend.wait_until_fit`; there is nothing to wait for."""

    def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
        """See `Backend.forward`."""
        started = time.monotonic()
        self._given = started, sum(pair.n_tokens for pair in pairs)
        try:
            logits = self._backend.forward(pairs)
        finally:
            self._given = None
        self._patience.observe(time.monotonic() - started)
        return logits

    def close(self) -> None:
        """See `Backend.close`."""
        self._backend.close()
