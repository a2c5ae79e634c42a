"""Memory of this process, of its machine and of its GPUs: read whenever metrics are asked for."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tamis.engine.memory import available_bytes, cuda_memory


class MemoryMetrics(Collector):
    """What is taken and what is left; nothing where the system does not say."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks."""
        available = GaugeMetricFamily(
            "tamis_memory_available_bytes",
            "Memory that the server may still take, within its machine and container",
        )
        n_bytes = available_bytes()
        if n_bytes is not None:
            available.add_metric([], n_bytes)
        yield available
        reserved = GaugeMetricFamily(
            "tamis_cuda_reserved_bytes", "GPU memory that torch holds", labels=["gpu"]
        )
        total = GaugeMetricFamily("tamis_cuda_total_bytes", "GPU memory there is", labels=["gpu"])
        for number, (n_reserved, n_total) in enumerate(cuda_memory()):
            reserved.add_metric([str(number)], n_reserved)
            total.add_metric([str(number)], n_total)
        yield reserved
        yield total
