"""Lines of the log that were left out: asked for whenever metrics are."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from tamis.observability.log_writer import LogWriter


class LogMetrics(Collector):
    """What the log's handler has counted; zeros where no handler is watched."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handler: LogWriter | None = None
        registry.register(self)

    def watch(self, handler: LogWriter) -> None:
        """Ask this one."""
        self._handler = handler

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks."""
        dropped = CounterMetricFamily(
            "tamis_log_dropped_lines", "Lines of the log that were left out", labels=["reason"]
        )
        handler = self._handler
        dropped.add_metric(["rate"], handler.n_left_out if handler else 0)
        dropped.add_metric(["unread"], handler.n_unread if handler else 0)
        yield dropped
