"""Errors of what only watches: they end here, are counted, and fail no request."""

import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

Part = Literal["answer", "metrics", "stats"]
"""What failed: taking an answer in, collecting a metric, or the report of the ranking."""


class MonitoringFaults:
    """Contains errors and counts them; of each kind the first is logged.

    Args:
        registry: Where the metric goes; nowhere if None.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._errors = Counter(
            "tamis_monitoring_errors",
            "Errors in watching, which fail no request",
            ["part"],
            registry=registry,
        )
        for part in get_args(Part):
            self._errors.labels(part)
        self._told: set[tuple[Part, type[Exception]]] = set()

    @contextmanager
    def contained(self, part: Part) -> Generator[None]:
        """Go on behind the block, whatever it raises."""
        try:
            yield
        except Exception as error:
            self._errors.labels(part).inc()
            if (part, type(error)) not in self._told:
                self._told.add((part, type(error)))
                logger.exception("monitoring failed (%s); requests continue; logged once", part)


class SafeRegistry(CollectorRegistry):
    """Metrics, each of which may fail: the others are shown then.

    Attributes:
        faults: What was contained, here and elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.faults = MonitoringFaults(self)

    def register(self, collector: Collector) -> None:
        """Register a collector whose errors are counted and fail no scrape."""
        super().register(ContainedCollector(collector, self))


class ContainedCollector(Collector):
    """A collector whose errors end here.

    Attributes:
        inner: The collector.
    """

    def __init__(self, inner: Collector, registry: SafeRegistry) -> None:
        self.inner = inner
        self._registry = registry

    def describe(self) -> Iterable[Metric]:
        """What the collector says it has; nothing where it does not say."""
        describe = getattr(self.inner, "describe", None)
        return describe() if describe else []

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client asks: all metrics up to the one that fails."""
        found: list[Metric] = []
        with self._registry.faults.contained("metrics"):
            found.extend(self.inner.collect())
        return found
