"""Observers of batches: their sizes, times and failures."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One forward pass.

    Attributes:
        n_tokens: Tokens of all pairs.
        n_jobs: Requests that shared it.
        n_computed_tokens: Tokens the model computed; a query that documents share counts once.
        n_padding_tokens: Padding that attention added to them.
    """

    n_pairs: int
    n_tokens: int
    n_jobs: int
    seconds: float
    n_computed_tokens: int = 0
    n_padding_tokens: int = 0


class BatchObserver:
    """Is told about batches; each method is called in the model thread."""

    def batch_done(self, report: BatchReport) -> None:
        """A forward pass succeeded."""

    def batch_failed(self) -> None:
        """A forward pass failed."""

    def pairs_failed(self, n_pairs: int) -> None:
        """Pairs got no logit."""

    def logits_not_finite(self, n_logits: int) -> None:
        """A forward pass returned logits that are NaN or infinite."""

    def out_of_memory(self) -> None:
        """A forward pass ran out of memory."""

    def stand_in_took_over(self) -> None:
        """The fallback has replaced the backend."""


class BatchCallback(BatchObserver):
    """Calls a function after each successful forward pass."""

    def __init__(self, on_batch: Callable[[BatchReport], None]) -> None:
        self._on_batch = on_batch

    def batch_done(self, report: BatchReport) -> None:
        """Call back with the report."""
        self._on_batch(report)
