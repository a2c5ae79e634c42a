"""Counts in fixed bins, as Prometheus, charts and drift need them."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

SCORE_EDGES = (
    *(0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    *(0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
)
"""Closer at both ends, where models that read query and document together have most scores."""
MARGIN_EDGES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SHARE_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
DISPLACEMENT_EDGES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
TAU_EDGES = (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
RANK_EDGES = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 50.0, 100.0)

LOGIT_EDGES = tuple(float(edge) for edge in np.arange(-16.0, 16.25, 0.25))
"""Bins that drift is measured in: equally wide where every model has its scores, which on the
scale of 0 to 1 would be two bins for most."""

_LOGIT_EDGES = np.array(LOGIT_EDGES)


class Histogram:
    """How many values lie in (edge before, edge], the last bin beyond all edges.

    Attributes:
        edges: Upper ends of all bins but the last.
        counts: (n_edges + 1,).
        total: Sum of all values.
    """

    __slots__ = ("_array", "counts", "edges", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self.counts = np.zeros(len(edges) + 1, dtype=np.int64)
        self.total = 0.0
        self._array = np.array(edges)

    @property
    def n(self) -> int:
        """Values so far."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float | None:
        """Of all values; None without any."""
        n = self.n
        return self.total / n if n else None

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def add_all(self, values: NDArray[np.float64]) -> None:
        """Count values (n,)."""
        bins = np.searchsorted(self._array, values)
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.total += float(values.sum())

    def include(self, other: "Histogram") -> None:
        """Count what another one with the same edges has counted, too."""
        self.counts += other.counts
        self.total += other.total

    def cumulative(self) -> list[tuple[str, float]]:
        """Prometheus's buckets: each upper end, and the values up to it."""
        ends = [*(repr(edge) for edge in self.edges), "+Inf"]
        return list(zip(ends, map(float, accumulate(self.counts.tolist())), strict=True))


def logit_bins(logits: NDArray[np.float64]) -> NDArray[np.intp]:
    """How many of the logits (n,) lie in each bin of `LOGIT_EDGES`, (n_edges + 1,)."""
    return np.bincount(np.searchsorted(_LOGIT_EDGES, logits), minlength=len(LOGIT_EDGES) + 1)
