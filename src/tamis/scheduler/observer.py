"""Who hears how batches fare."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One forward pass.

    Attributes:
        n_tokens: Of all pairs.
        n_jobs: Requests that shared it.
        n_computed_tokens: What the model computes of them: a query that documents share once.
        n_padding_tokens: Places beside them that attention filled up.
    """

    n_pairs: int
    n_tokens: int
    n_jobs: int
    seconds: float
    n_computed_tokens: int = 0
    n_padding_tokens: int = 0


class BatchObserver:
    """What wants to know how batches fare; each method is called in the model thread."""

    def batch_done(self, report: BatchReport) -> None:
        """A forward pass went well."""

    def batch_failed(self) -> None:
        """A forward pass failed."""

    def pairs_failed(self, n_pairs: int) -> None:
        """So many pairs get no logit."""

    def logits_not_finite(self, n_logits: int) -> None:
        """A forward pass gave so many logits that are NaN or infinite."""

    def out_of_memory(self) -> None:
        """A forward pass wanted more memory than there is."""

    def stand_in_took_over(self) -> None:
        """The backend was given up."""


class BatchCallback(BatchObserver):
    """Calls a function after each forward pass that went well."""

    def __init__(self, on_batch: Callable[[BatchReport], None]) -> None:
        self._on_batch = on_batch

    def batch_done(self, report: BatchReport) -> None:
        """See `BatchObserver.batch_done`."""
        self._on_batch(report)
