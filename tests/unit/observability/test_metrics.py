from tamis.observability.metrics import Metrics
from tamis.scheduler.execution import BatchReport
from tamis.scheduler.scheduler import SchedulerStatistics
from tamis.types import Usage


def lines(metrics: Metrics) -> list[str]:
    return metrics.render().decode().splitlines()


def test_a_request_is_counted_by_dialect_and_status() -> None:
    metrics = Metrics()
    metrics.observe_request(dialect="tei", status=424, seconds=0.2)
    assert 'tamis_requests_total{dialect="tei",status="424"} 1.0' in lines(metrics)
    assert 'tamis_request_duration_seconds_sum{dialect="tei"} 0.2' in lines(metrics)


def test_usage_adds_up() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.observe_usage(Usage(n_pairs=3, n_tokens=40, n_truncated=1))
    assert {"tamis_pairs_total 6.0", "tamis_tokens_total 80.0"} <= set(lines(metrics))
    assert "tamis_truncated_pairs_total 2.0" in lines(metrics)


def test_a_batch_is_measured_in_pairs_tokens_requests_and_seconds() -> None:
    metrics = Metrics()
    metrics.batches.batch_done(BatchReport(n_pairs=5, n_tokens=300, n_jobs=3, seconds=0.07))
    assert {
        "tamis_batch_pairs_sum 5.0",
        "tamis_batch_tokens_sum 300.0",
        "tamis_batch_requests_sum 3.0",
        "tamis_batch_duration_seconds_sum 0.07",
    } <= set(lines(metrics))


def test_the_queue_is_read_when_metrics_are_asked_for() -> None:
    metrics = Metrics()
    statistics = SchedulerStatistics(running=True, n_queued_jobs=1, n_tokens=10)
    metrics.watch_queue(lambda: statistics)
    assert "tamis_queue_tokens 10.0" in lines(metrics)
    statistics = SchedulerStatistics(running=True, n_queued_jobs=2, n_tokens=20)
    assert {"tamis_queue_tokens 20.0", "tamis_queue_requests 2.0"} <= set(lines(metrics))


def test_two_servers_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.observe_usage(Usage(n_pairs=1, n_tokens=1, n_truncated=0))
    assert "tamis_pairs_total 0.0" in lines(other)


def test_every_metric_is_tamis_own_and_has_a_help_text() -> None:
    helps = [line.split(maxsplit=3) for line in lines(Metrics()) if line.startswith("# HELP")]
    assert helps
    assert all(name.startswith("tamis_") and text for _, _, name, text in helps)
