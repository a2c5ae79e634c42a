import platform

from prometheus_client import CollectorRegistry

import tamis
from tamis.engine.facts import ModelFacts
from tamis.observability.state import StateMetrics
from tamis.scheduler.scheduler import SchedulerStatistics


def test_the_queue_is_read_when_metrics_are_asked_for() -> None:
    registry = CollectorRegistry()
    metrics = StateMetrics(registry)
    statistics = SchedulerStatistics(running=True, n_queued_jobs=1, n_tokens=10)
    metrics.watch_queue(lambda: statistics, max_tokens=100)
    assert registry.get_sample_value("tamis_queue_tokens") == 10
    statistics = SchedulerStatistics(True, 2, 20, degraded="stand_in")
    assert registry.get_sample_value("tamis_queue_tokens") == 20
    assert registry.get_sample_value("tamis_queue_requests") == 2
    assert registry.get_sample_value("tamis_queue_limit_tokens") == 100
    assert registry.get_sample_value("tamis_degraded") == 1


def test_life_is_asked_when_metrics_are_asked_for() -> None:
    registry = CollectorRegistry()
    metrics = StateMetrics(registry)
    ready, stalled = False, False
    metrics.watch_life(is_ready=lambda: ready, is_stalled=lambda: stalled)
    assert registry.get_sample_value("tamis_ready") == 0
    ready, stalled = True, True
    assert registry.get_sample_value("tamis_ready") == 1
    assert registry.get_sample_value("tamis_stalled") == 1


def test_workers_are_counted_and_their_restarts_add_up() -> None:
    registry = CollectorRegistry()
    metrics = StateMetrics(registry)
    metrics.watch_workers(lambda: 3)
    metrics.observe_worker_restart()
    assert registry.get_sample_value("tamis_workers_ready") == 3
    assert registry.get_sample_value("tamis_worker_restarts_total") == 1


def test_model_and_version_are_told() -> None:
    registry = CollectorRegistry()
    metrics = StateMetrics(registry)
    model = {"name": "m", "runtime": "torch", "device": "cpu", "dtype": "float32"}
    metrics.describe_model(ModelFacts(**model, max_length=512, max_batch_tokens=1024))
    assert registry.get_sample_value("tamis_model_info", model) == 1
    build = {"version": tamis.__version__, "python": platform.python_version()}
    assert registry.get_sample_value("tamis_build_info", build) == 1
