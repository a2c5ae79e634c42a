import sys
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from tamis.observability.memory_gauges import MemoryMetrics


def test_the_processs_own_memory_and_files_are_there() -> None:
    registry = CollectorRegistry()
    MemoryMetrics(registry)
    resident = registry.get_sample_value("process_resident_memory_bytes")
    files = registry.get_sample_value("process_open_fds")
    assert resident is not None
    assert resident > 2**20
    assert files is not None
    assert files > 0


def test_what_is_left_is_there() -> None:
    registry = CollectorRegistry()
    MemoryMetrics(registry)
    left = registry.get_sample_value("tamis_memory_available_bytes")
    assert left is not None
    assert left > 0


def test_a_gpus_memory_is_there_where_torch_uses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_reserved=lambda number: 100 + number,
        get_device_properties=lambda number: SimpleNamespace(total_memory=1000),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    registry = CollectorRegistry()
    MemoryMetrics(registry)
    for number in range(2):
        labels = {"gpu": str(number)}
        assert registry.get_sample_value("tamis_cuda_reserved_bytes", labels) == 100 + number
        assert registry.get_sample_value("tamis_cuda_total_bytes", labels) == 1000
