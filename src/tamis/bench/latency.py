"""Percentiles of requests' seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds a request, interpolated between requests; with few of them p99 is the slowest."""

    n_requests: int
    p50_seconds: float
    p95_seconds: float
    p99_seconds: float


def latency(seconds: Sequence[float]) -> Latency:
    """Percentiles of at least one request."""
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    return Latency(len(seconds), float(p50), float(p95), float(p99))
