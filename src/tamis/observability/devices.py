"""What runs the models: looked at whenever metrics are asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from tamis.engine.memory import resident_bytes
from tamis.scheduler.execution import BatchRunner


class Worker(Protocol):
    """What runs batches in a process of its own."""

    @property
    def pid(self) -> int | None:
        """The process now; None between two of them."""
        ...


@dataclass(frozen=True, slots=True)
class Device:
    """What runs one model.

    Attributes:
        model: The model's name.
        name: `cpu` or `cuda`.
        hardware: What kind of one.
        runners: One for each worker, or the one of this process.
        workers: None of them where this process runs the model.
    """

    model: str
    name: str
    hardware: str
    runners: Sequence[BatchRunner]
    workers: Sequence[Worker] = ()


class DeviceMetrics(Collector):
    """The runners of all models of a server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._devices: list[Device] = []
        registry.register(self)

    def watch(self, device: Device) -> None:
        """Look at one more."""
        self._devices.append(device)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks."""
        yield self._info()
        yield self._of_runners(
            "tamis_device_up", "1 while it can run batches", lambda one: one.fault is None
        )
        yield self._of_runners(
            "tamis_device_degraded",
            "1 while it does less than it could",
            lambda one: one.degraded is not None,
        )
        yield self._of_runners(
            "tamis_device_budget_tokens",
            "Tokens of a batch now; fewer after it lacked memory",
            lambda one: one.max_batch_tokens,
        )
        yield self._memory()

    def _info(self) -> Metric:
        labels = ["model", "runner", "device", "hardware"]
        info = InfoMetricFamily("tamis_device", "What runs a model", labels=labels)
        for device in self._devices:
            for number, _ in enumerate(device.runners):
                info.add_metric([device.model, str(number), device.name, device.hardware], {})
        return info

    def _of_runners(self, name: str, text: str, value: Callable[[BatchRunner], float]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["model", "runner"])
        for device in self._devices:
            for number, runner in enumerate(device.runners):
                family.add_metric([device.model, str(number)], float(value(runner)))
        return family

    def _memory(self) -> Metric:
        family = GaugeMetricFamily(
            "tamis_worker_resident_memory_bytes",
            "Resident memory of a worker process",
            labels=["model", "runner"],
        )
        for device in self._devices:
            for number, worker in enumerate(device.workers):
                pid = worker.pid
                n_bytes = None if pid is None else resident_bytes(pid)
                if n_bytes is not None:
                    family.add_metric([device.model, str(number)], n_bytes)
        return family
