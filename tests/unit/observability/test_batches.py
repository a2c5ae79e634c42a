from prometheus_client import CollectorRegistry

from tamis.observability.batches import BatchMetrics
from tamis.scheduler.observer import BatchReport


def test_a_batch_is_measured_in_pairs_tokens_requests_and_seconds() -> None:
    registry = CollectorRegistry()
    BatchMetrics(registry).batch_done(BatchReport(n_pairs=5, n_tokens=300, n_jobs=3, seconds=0.07))
    assert registry.get_sample_value("tamis_batch_pairs_sum") == 5
    assert registry.get_sample_value("tamis_batch_tokens_sum") == 300
    assert registry.get_sample_value("tamis_batch_requests_sum") == 3
    assert registry.get_sample_value("tamis_batch_duration_seconds_sum") == 0.07


def test_what_is_computed_and_what_is_padded_add_up_apart() -> None:
    registry = CollectorRegistry()
    metrics = BatchMetrics(registry)
    for _ in range(2):
        metrics.batch_done(BatchReport(5, 300, 3, 0.07, n_computed_tokens=250, n_padding_tokens=50))
    assert registry.get_sample_value("tamis_computed_tokens_total") == 500
    assert registry.get_sample_value("tamis_padding_tokens_total") == 100


def test_what_goes_wrong_is_counted() -> None:
    registry = CollectorRegistry()
    metrics = BatchMetrics(registry)
    metrics.batch_failed()
    metrics.pairs_failed(4)
    metrics.logits_not_finite(2)
    metrics.out_of_memory()
    metrics.stand_in_took_over()
    assert registry.get_sample_value("tamis_batch_failures_total") == 1
    assert registry.get_sample_value("tamis_failed_pairs_total") == 4
    assert registry.get_sample_value("tamis_logits_not_finite_total") == 2
    assert registry.get_sample_value("tamis_out_of_memory_total") == 1
    assert registry.get_sample_value("tamis_stand_ins_total") == 1
