from tamis.errors import QueueFullError
from tamis.observability.metrics import Metrics
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


def test_every_error_begins_at_0_so_that_a_rate_sees_the_first() -> None:
    metrics = Metrics()
    assert 'tamis_errors_total{code="queue_full"} 0.0' in lines(metrics)
    metrics.observe_error(QueueFullError.code)
    assert 'tamis_errors_total{code="queue_full"} 1.0' in lines(metrics)


def test_refusals_and_callers_who_left_are_counted() -> None:
    metrics = Metrics()
    metrics.observe_refusal("unauthorized")
    metrics.observe_cancelled()
    assert 'tamis_refusals_total{reason="unauthorized"} 1.0' in lines(metrics)
    assert "tamis_cancelled_requests_total 1.0" in lines(metrics)


def test_two_servers_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.observe_usage(Usage(n_pairs=1, n_tokens=1, n_truncated=0))
    assert "tamis_pairs_total 0.0" in lines(other)


def test_every_metric_is_tamis_own_or_the_processs_and_has_a_help_text() -> None:
    helps = [line.split(maxsplit=3) for line in lines(Metrics()) if line.startswith("# HELP")]
    assert len(helps) > 40
    assert all(name.startswith(("tamis_", "process_")) and text for _, _, name, text in helps)


def test_units_stand_in_the_names_and_are_base_units() -> None:
    names = [line.split()[2] for line in lines(Metrics()) if line.startswith("# TYPE")]
    assert not [
        name for name in names if name.endswith(("_ms", "_millis", "_mb", "_kb", "_minutes"))
    ]
