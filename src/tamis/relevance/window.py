"""The newest requests of a model: what drift is looked for in."""

import numpy as np
from numpy.typing import NDArray

from tamis.relevance.baseline import Moments, ScoreBins, Snapshot
from tamis.relevance.histogram import LOGIT_EDGES, logit_bins
from tamis.relevance.signals import Reading

SIGNALS = (
    "retention",
    "top5_overlap",
    "kendall_tau",
    "nothing_relevant",
    "truncation",
    "tokens",
)
"""What each request has one value of."""

_N_BINS = len(LOGIT_EDGES) + 1


class Window:
    """A ring of the newest requests. A quarter of a megabyte for 500.

    Args:
        size: Requests it holds.
        threshold: The score below which nothing is relevant.
    """

    def __init__(self, size: int, threshold: float) -> None:
        self._threshold = threshold
        self._n_seen = 0
        self._bins = np.zeros((size, _N_BINS), dtype=np.int32)
        self._top_logits = np.zeros(size)
        self._values = np.full((size, len(SIGNALS)), np.nan)

    @property
    def n_seen(self) -> int:
        """Requests so far, those that have left included."""
        return self._n_seen

    def add(self, reading: Reading) -> None:
        """Take one request in, and the oldest out where it is full."""
        row = self._n_seen % len(self._top_logits)
        self._n_seen += 1
        self._bins[row] = logit_bins(reading.logits)
        self._top_logits[row] = reading.best_logit
        self._values[row] = self._values_of(reading)

    def snapshot(self, model: str) -> Snapshot:
        """All that is in it."""
        n = min(self._n_seen, len(self._top_logits))
        bins = self._bins[:n]
        per_request = bins.sum(axis=1)
        top = logit_bins(self._top_logits[:n])
        return Snapshot(
            model=model,
            n_requests=n,
            threshold=self._threshold,
            top=ScoreBins(top.tolist(), float(n)),
            all=ScoreBins(bins.sum(axis=0, dtype=np.int64).tolist(), _effective(per_request)),
            signals={
                name: _moments(self._values[:n, column]) for column, name in enumerate(SIGNALS)
            },
        )

    def _values_of(self, reading: Reading) -> tuple[float, ...]:
        """One value for each of `SIGNALS`; NaN where the request has none."""
        order = reading.against_given
        overlap = None if order is None else order.top_overlap
        return (
            np.nan if order is None else float(order.retained),
            np.nan if overlap is None else overlap,
            np.nan if order is None else order.kendall_tau,
            float(reading.best_score < self._threshold),
            reading.truncation,
            reading.tokens,
        )


def _effective(per_request: NDArray[np.int64]) -> float:
    """Kish's effective sample size: documents of one request are one draw, however many.

    Without it one request of 1,000 documents among 499 of 10 would count as 1,000 draws.
    """
    weights = per_request.astype(np.float64)
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def _moments(values: NDArray[np.float64]) -> Moments:
    found = values[~np.isnan(values)]
    if not len(found):
        return Moments(0, 0.0, 0.0)
    return Moments(len(found), float(found.mean()), float(found.var()))
