from prometheus_client import CollectorRegistry

from tamis.cache.store import StoreStatistics
from tamis.observability.cache import CacheMetrics


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_each_store_counts_for_itself() -> None:
    registry = CollectorRegistry()
    metrics = CacheMetrics(registry)
    metrics.hits("memory", 45)
    metrics.misses("memory", 5)
    metrics.hits("redis", 2)
    metrics.corrupt("redis", 1)
    metrics.failed("redis", "timeout")
    metrics.dropped_writes("redis", 7)
    assert value(registry, "tamis_cache_hits_total", store="memory") == 45
    assert value(registry, "tamis_cache_misses_total", store="memory") == 5
    assert value(registry, "tamis_cache_hits_total", store="redis") == 2
    assert value(registry, "tamis_cache_corrupt_total", store="redis") == 1
    assert value(registry, "tamis_cache_errors_total", store="redis", reason="timeout") == 1
    assert value(registry, "tamis_cache_dropped_writes_total", store="redis") == 7


def test_pairs_that_another_was_scoring_have_no_store() -> None:
    registry = CollectorRegistry()
    CacheMetrics(registry).waited(3)
    assert value(registry, "tamis_cache_shared_pairs_total") == 3


def test_a_store_says_how_it_is_and_its_counters_begin_at_0() -> None:
    registry = CollectorRegistry()
    metrics = CacheMetrics(registry)
    metrics.observe_stores([StoreStatistics("memory", 10, 3200)])
    metrics.observe_stores([StoreStatistics("redis", None, None, state="open")])
    assert value(registry, "tamis_cache_up", store="memory") == 1
    assert value(registry, "tamis_cache_entries", store="memory") == 10
    assert value(registry, "tamis_cache_bytes", store="memory") == 3200
    assert value(registry, "tamis_cache_up", store="redis") == 0
    assert value(registry, "tamis_cache_entries", store="redis") is None
    assert value(registry, "tamis_cache_corrupt_total", store="redis") == 0
