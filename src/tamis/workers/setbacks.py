"""How often in a row workers were lost: when the next one starts, and whether to wait for it."""

FAILURES_UNTIL_LASTING = 3
"""In a row; from then on callers are refused rather than kept waiting."""

LOSSES_UNTIL_LASTING = 24
"""Of workers that came up and were lost without an answer. A document that kills workers costs two
at each halving of its batch, and is to be found before anybody else is refused."""

MOST_WITH_HOPE = 2


class Setbacks:
    """Counts the ends of workers that nobody wanted.

    A worker that does not come up says more than one that came up and was lost: of the latter a
    batch may be the cause.

    Args:
        first_pause: Seconds before the second start in a row; it doubles with every one after.
            The first comes at once.
        longest_pause: What it grows to. A worker that was up for longer counts as the first.

    Attributes:
        n_failures: In a row.
    """

    def __init__(self, first_pause: float, longest_pause: float) -> None:
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._n_lost = 0
        self.n_failures = 0

    def observe_answer(self) -> None:
        """A worker has scored a batch: what was before does not count."""
        self.n_failures = self._n_lost = 0

    def observe_end(self, seconds_up: float | None) -> None:
        """A worker has ended.

        Args:
            seconds_up: Since it came up; None of one that did not, or was up for nothing.
        """
        self._n_lost = 0 if seconds_up is None else self._n_lost + 1
        if seconds_up is not None and seconds_up > self._longest_pause:
            self.n_failures = self._n_lost = 1
        elif 0 < self._n_lost < LOSSES_UNTIL_LASTING:
            self.n_failures = min(MOST_WITH_HOPE, self.n_failures + 1)
        else:
            self.n_failures = max(self.n_failures, self._n_lost) + 1

    @property
    def is_lasting(self) -> bool:
        """Whether there is no point in waiting for the next one."""
        return self.n_failures >= FAILURES_UNTIL_LASTING

    @property
    def pause(self) -> float:
        """Seconds until the next one starts."""
        if self.n_failures <= 1:
            return 0.0
        doubled = self._first_pause * 2.0 ** min(self.n_failures - 2, 32)
        return min(self._longest_pause, doubled)
