"""Some of the registry's numbers, for those who are not Prometheus."""

import math
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry

LabelSet = tuple[tuple[str, str], ...]

_ENDS = ("", "_total", "_bucket", "_sum", "_count")
"""What the names of a metric's samples end in."""


class Samples:
    """What some metrics of a registry say now.

    Args:
        registry: Where they are.
        metrics: Their names, a counter's without `_total`.
    """

    def __init__(self, registry: CollectorRegistry, metrics: Iterable[str]) -> None:
        self._by_name: dict[str, dict[LabelSet, float]] = {}
        wanted = set(metrics)
        for metric in registry.restricted_registry(_sample_names(wanted)).collect():
            for sample in metric.samples if metric.name in wanted else ():
                labels = tuple(sorted(sample.labels.items()))
                self._by_name.setdefault(sample.name, {})[labels] = sample.value

    def of(self, name: str) -> list[tuple[dict[str, str], float]]:
        """All samples of a name, with their labels."""
        return [(dict(labels), value) for labels, value in self._by_name.get(name, {}).items()]

    def one(self, name: str, **labels: str) -> float:
        """One sample; 0 where it is not there."""
        return self._by_name.get(name, {}).get(tuple(sorted(labels.items())), 0.0)

    def mean(self, histogram: str, **labels: str) -> float | None:
        """Mean of what a histogram has counted; None where that is nothing."""
        n = self.one(f"{histogram}_count", **labels)
        return self.one(f"{histogram}_sum", **labels) / n if n else None

    def quantiles(
        self, histogram: str, shares: Sequence[float], **labels: str
    ) -> list[float | None]:
        """About where these shares of what a histogram has counted end."""
        buckets = sorted(
            (float(found["le"]), value)
            for found, value in self.of(f"{histogram}_bucket")
            if _is_within(labels, found)
        )
        return [_quantile(buckets, share) for share in shares]


def _sample_names(metrics: Iterable[str]) -> list[str]:
    return [f"{name}{end}" for name in metrics for end in _ENDS]


def _is_within(wanted: Mapping[str, str], found: Mapping[str, str]) -> bool:
    return all(found.get(name) == value for name, value in wanted.items())


def _quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """As Prometheus's histogram_quantile: evenly spread within a bucket; the last edge beyond it.

    Args:
        buckets: Upper ends, ascending, and how many values there are up to each.
        share: 0..1.
    """
    n = buckets[-1][1] if buckets else 0.0
    if not n:
        return None
    below, n_below = 0.0, 0.0
    for end, n_up_to in buckets:
        if n_up_to >= share * n:
            if math.isinf(end):
                break
            return below + (end - below) * (share * n - n_below) / max(n_up_to - n_below, 1.0)
        below, n_below = end, n_up_to
    return below
