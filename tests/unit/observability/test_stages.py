import pytest
from prometheus_client import CollectorRegistry

from tamis.observability.stages import StageMetrics
from tamis.timing import STAGES


def count(registry: CollectorRegistry, stage: str) -> float | None:
    labels = {"stage": stage}
    return registry.get_sample_value("tamis_stage_duration_seconds_count", labels)


def test_every_stage_is_there_from_the_start() -> None:
    registry = CollectorRegistry()
    StageMetrics(registry)
    assert [count(registry, stage) for stage in STAGES] == [0] * len(STAGES)


def test_a_stage_counts_when_it_is_left_also_by_an_error() -> None:
    registry = CollectorRegistry()
    stages = StageMetrics(registry)
    with stages.stage("encode"):
        assert count(registry, "encode") == 0
    with pytest.raises(ValueError, match="bad"), stages.stage("encode"):
        raise ValueError("bad")
    assert count(registry, "encode") == 2
    assert count(registry, "rank") == 0


def test_what_was_spent_waiting_counts_in_seconds() -> None:
    registry = CollectorRegistry()
    StageMetrics(registry).passed("queue", 10.0, 10.5)
    labels = {"stage": "queue"}
    assert registry.get_sample_value("tamis_stage_duration_seconds_sum", labels) == 0.5
