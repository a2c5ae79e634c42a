from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tamis.observability.relevance import RelevanceCollector
from tamis.relevance.baseline import baseline_of, write_baseline
from tamis.relevance.monitor import RelevanceMonitor
from tamis.relevance.request_log import MOST_WAITING_CHARACTERS, RequestLog
from tamis.relevance.series import MAX_SERIES
from tamis.settings import RelevanceSettings
from tamis.types import RerankRequest
from tests.rankings import ranking, snapshot

Samples = dict[str, dict[frozenset[str], float]]


def scrape(registry: CollectorRegistry) -> Samples:
    """Samples by name and by the values of their labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert family.name.startswith("tamis_relevance_")
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.values())] = sample.value
    return found


def watched(**options: object) -> tuple[RelevanceMonitor, CollectorRegistry]:
    registry = CollectorRegistry()
    monitor = RelevanceMonitor(RelevanceSettings.model_validate(options))
    registry.register(RelevanceCollector(monitor))
    return monitor, registry


def test_counts_and_histograms_have_the_callers_labels() -> None:
    monitor, registry = watched()
    for logits in ([1.0, 0.0], [0.0, 1.0], [-5.0]):
        monitor.observe(ranking(logits, caller="web"))
    found, web = scrape(registry), frozenset({"m", "native", "web"})
    assert found["tamis_relevance_requests_total"][web] == 3
    assert found["tamis_relevance_compared_requests_total"][web] == 2
    assert found["tamis_relevance_retained_requests_total"][web] == 1
    assert found["tamis_relevance_nothing_relevant_requests_total"][web] == 1
    assert found["tamis_relevance_score_count"][web] == 5
    assert found["tamis_relevance_top_score_bucket"][web | {"0.01"}] == 1
    assert found["tamis_relevance_top_score_bucket"][web | {"+Inf"}] == 3
    assert found["tamis_relevance_margin_logits_sum"][web] == 2


def test_buckets_ascend_and_tau_has_no_sum_that_could_fall() -> None:
    monitor, registry = watched()
    monitor.observe(ranking([0.0, 1.0]))
    found = scrape(registry)
    assert found["tamis_relevance_kendall_tau_bucket"][frozenset({"m", "native", "", "-0.75"})] == 1
    assert "tamis_relevance_kendall_tau_sum" not in found


def test_feedback_has_its_event() -> None:
    monitor, registry = watched()
    monitor.observe(ranking([0.0, 1.0], request_id="r"))
    assert "tamis_relevance_feedback_rank_count" not in scrape(registry)
    monitor.feedback.record("", "r", [0], "clicked")
    found, clicked = scrape(registry), frozenset({"m", "native", "", "clicked"})
    assert found["tamis_relevance_feedback_rank_sum"][clicked] == 2
    assert found["tamis_relevance_feedback_given_rank_sum"][clicked] == 1
    assert found["tamis_relevance_feedback_reciprocal_rank_sum"][clicked] == 0.5


def test_the_window_and_its_drift_are_gauges(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    write_baseline(file, baseline_of(snapshot(200, seed=0, n_documents=2)))
    monitor, registry = watched(baseline=file)
    for number in range(150):
        monitor.observe(ranking([9.0, number / 100]))
    found = scrape(registry)
    assert found["tamis_relevance_window_requests"][frozenset({"m"})] == 150
    assert found["tamis_relevance_window_mean"][frozenset({"m", "retention"})] == 1
    assert found["tamis_relevance_score_ks"][frozenset({"m", "top"})] > 0.9
    assert found["tamis_relevance_score_psi"][frozenset({"m", "all"})] > 0.25
    assert found["tamis_relevance_drift_alert"][frozenset({"m", "top_ks"})] == 1
    assert found["tamis_relevance_drift_alert"][frozenset({"m", "tokens"})] == 0
    assert 0 < found["tamis_relevance_drift_line"][frozenset({"m", "retention"})] < 1
    assert found["tamis_relevance_baseline_mean"][frozenset({"m", "tokens"})] == 10


def test_without_a_baseline_there_is_no_drift_to_show() -> None:
    monitor, registry = watched()
    monitor.observe(ranking())
    found = scrape(registry)
    assert not [name for name in found if "drift" in name or "psi" in name or "baseline" in name]


def test_callers_without_end_make_no_series_without_end() -> None:
    monitor, registry = watched()
    for number in range(100):
        monitor.observe(ranking(caller=f"c{number}"))
    requests = scrape(registry)["tamis_relevance_requests_total"]
    assert len(requests) == MAX_SERIES + 1
    assert requests[frozenset({"other"})] == 100 - MAX_SERIES


def test_metrics_tell_callers_apart_or_add_them_up() -> None:
    for by_caller in (True, False):
        registry = CollectorRegistry()
        monitor = RelevanceMonitor(RelevanceSettings())
        registry.register(RelevanceCollector(monitor, by_caller=by_caller))
        monitor.observe(ranking(caller="web"))
        monitor.observe(ranking(caller="app"))
        text = generate_latest(registry).decode()
        assert ('caller="web"' in text) is by_caller
        n = 1 if by_caller else 2
        assert f"{n}.0" in next(
            line for line in text.splitlines() if line.startswith("tamis_relevance_requests_total")
        )


def test_requests_that_the_log_dropped_are_counted(tmp_path: Path) -> None:
    options = RelevanceSettings(log_file=tmp_path / "log.jsonl", log_share=1.0)
    log, registry = RequestLog(options), CollectorRegistry()
    registry.register(RelevanceCollector(RelevanceMonitor(options), log))
    dropped = "tamis_relevance_log_dropped_requests_total"
    assert scrape(registry)[dropped][frozenset()] == 0
    log.offer(ranking(), RerankRequest("x" * (MOST_WAITING_CHARACTERS + 1), ("a",)))
    log.close()
    assert scrape(registry)[dropped][frozenset()] == 1
