import pytest
from prometheus_client import CollectorRegistry

from tamis.observability.phases import PhaseMetrics
from tamis.timing import PHASES


def count(registry: CollectorRegistry, phase: str) -> float | None:
    labels = {"stage": phase}
    return registry.get_sample_value("tamis_stage_duration_seconds_count", labels)


def test_every_phase_is_there_from_the_start() -> None:
    registry = CollectorRegistry()
    PhaseMetrics(registry)
    assert [count(registry, phase) for phase in PHASES] == [0] * len(PHASES)


def test_a_phase_counts_when_it_is_left_also_by_an_error() -> None:
    registry = CollectorRegistry()
    phases = PhaseMetrics(registry)
    with phases.phase("encode"):
        assert count(registry, "encode") == 0
    with pytest.raises(ValueError, match="bad"), phases.phase("encode"):
        raise ValueError("bad")
    assert count(registry, "encode") == 2
    assert count(registry, "rank") == 0


def test_what_was_spent_waiting_counts_in_seconds() -> None:
    registry = CollectorRegistry()
    PhaseMetrics(registry).passed("queue", 10.0, 10.5)
    labels = {"stage": "queue"}
    assert registry.get_sample_value("tamis_stage_duration_seconds_sum", labels) == 0.5
