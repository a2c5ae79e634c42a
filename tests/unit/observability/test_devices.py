import os
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tamis.observability.devices import Device, DeviceMetrics
from tamis.scheduler.execution import BatchRunner
from tamis.scheduler.jobs import Job
from tamis.testing import FakeBackend, WordTokenizer


@dataclass(frozen=True)
class Life:
    """A worker, alive or not."""

    pid: int | None


def lacking_memory(_: object) -> None:
    raise MemoryError


def watched(backend: FakeBackend) -> tuple[CollectorRegistry, BatchRunner]:
    """The metrics of one worker, which is this very process."""
    registry = CollectorRegistry()
    runner = BatchRunner(backend, max_batch_tokens=1024)
    metrics = DeviceMetrics(registry)
    metrics.watch(Device("m", "cpu", "a processor", [runner], [Life(os.getpid()), Life(None)]))
    return registry, runner


def value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(name, {"model": "m", "runner": "0"})


def test_a_runner_is_described_and_up() -> None:
    registry, _ = watched(FakeBackend())
    labels = {"model": "m", "runner": "0", "device": "cpu", "hardware": "a processor"}
    assert registry.get_sample_value("tamis_device_info", labels) == 1
    assert value(registry, "tamis_device_up") == 1
    assert value(registry, "tamis_device_degraded") == 0
    assert value(registry, "tamis_device_budget_tokens") == 1024


def test_after_a_lack_of_memory_it_is_degraded_and_its_batches_are_smaller() -> None:
    registry, runner = watched(FakeBackend(lacking_memory))
    job = Job(WordTokenizer().encode("what is a panda", ["a bear", "a cat"]))
    runner.run([(job, 0), (job, 1)])
    assert value(registry, "tamis_device_degraded") == 1
    budget = value(registry, "tamis_device_budget_tokens")
    assert budget is not None
    assert budget < 1024


def test_a_workers_memory_is_its_own_and_one_between_two_lives_has_none() -> None:
    registry, _ = watched(FakeBackend())
    text = generate_latest(registry).decode()
    assert text.count("tamis_worker_resident_memory_bytes{") == 1
    found = value(registry, "tamis_worker_resident_memory_bytes")
    assert found is not None
    assert found > 2**20


def test_without_a_model_there_are_names_and_no_series() -> None:
    registry = CollectorRegistry()
    DeviceMetrics(registry)
    text = generate_latest(registry).decode()
    assert "# TYPE tamis_device_up gauge" in text
    assert "tamis_device_up{" not in text


@pytest.mark.parametrize("name", ["tamis_device_up", "tamis_device_info"])
def test_two_workers_are_two_series(name: str) -> None:
    registry = CollectorRegistry()
    runners = [BatchRunner(FakeBackend(), max_batch_tokens=8) for _ in range(2)]
    DeviceMetrics(registry).watch(Device("m", "cpu", "a processor", runners))
    assert generate_latest(registry).decode().count(f"{name}{{") == 2
