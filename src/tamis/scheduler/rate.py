"""How fast work gets done, lately: what waiting times are estimated from."""

_MEMORY = 0.9
"""Weight of all batches before in the mean, against 1 - this for the newest."""


class DrainRate:
    """Tokens a second over the last batches, about ten of them; time without work counts not."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def observe(self, n_tokens: int, seconds: float) -> None:
        """One batch."""
        self._tokens = _MEMORY * self._tokens + n_tokens
        self._seconds = _MEMORY * self._seconds + seconds

    @property
    def tokens_per_second(self) -> float | None:
        """None until something was observed."""
        return self._tokens / self._seconds if self._seconds > 0 else None

    def seconds_for(self, n_tokens: int) -> float | None:
        """How long so many tokens take; None until something was observed."""
        rate = self.tokens_per_second
        return None if rate is None else n_tokens / rate
