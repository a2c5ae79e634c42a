"""When to restart a worker, and when it is in a crash loop."""

FAILURES_UNTIL_CRASH_LOOP = 3
"""In a row; from then on callers are refused instead of kept waiting."""

LOSSES_UNTIL_CRASH_LOOP = 24
"""Workers in a row that came up and were lost without an answer. A document that kills workers
costs two at each halving of its batch, and must be found before any other caller is refused."""


class RestartPolicy:
    """Counts unexpected exits of one worker.

    A worker that does not come up weighs more than one that came up and was lost: the latter may
    be the fault of a batch.

    Args:
        initial_backoff_seconds: Before the second restart in a row; doubled for each one after it.
            The first restart comes at once.
        max_backoff_seconds: The longest wait. A worker that was up for longer starts a new row.

    Attributes:
        n_failures: In a row.
    """

    def __init__(self, initial_backoff_seconds: float, max_backoff_seconds: float) -> None:
        self._initial_backoff_seconds = initial_backoff_seconds
        self._max_backoff_seconds = max_backoff_seconds
        self._n_lost = 0
        self.n_failures = 0

    def record_answer(self) -> None:
        """A worker has scored a batch: earlier failures no longer count."""
        self.n_failures = self._n_lost = 0

    def record_exit(self, seconds_up: float | None) -> None:
        """A worker has exited.

        Args:
            seconds_up: Since it came up; None if it did not, or failed without doing any work.
        """
        self._n_lost = 0 if seconds_up is None else self._n_lost + 1
        if seconds_up is not None and seconds_up > self._max_backoff_seconds:
            self.n_failures = self._n_lost = 1
        elif 0 < self._n_lost < LOSSES_UNTIL_CRASH_LOOP:
            self.n_failures = min(FAILURES_UNTIL_CRASH_LOOP - 1, self.n_failures + 1)
        else:
            self.n_failures = max(self.n_failures, self._n_lost) + 1

    @property
    def is_crash_loop(self) -> bool:
        """Whether there is no point in waiting for the next worker."""
        return self.n_failures >= FAILURES_UNTIL_CRASH_LOOP

    @property
    def backoff_seconds(self) -> float:
        """Until the next restart."""
        if self.n_failures <= 1:
            return 0.0
        doubled = self._initial_backoff_seconds * 2.0 ** min(self.n_failures - 2, 32)
        return min(self._max_backoff_seconds, doubled)
