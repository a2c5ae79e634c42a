"""Metrics of the cache, by store."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from tamis.cache.store import CacheObserver, StoreStatistics


class CacheMetrics(CacheObserver):
    """Hits, misses and failures of the stores, and what is in them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def of_store(name: str, text: str, *more: str) -> Counter:
            return Counter(name, text, ["store", *more], registry=registry)

        self._hits = of_store("tamis_cache_hits", "Pairs found in a store of the cache")
        self._misses = of_store("tamis_cache_misses", "Pairs looked for in a store and not there")
        self._corrupt = of_store(
            "tamis_cache_corrupt", "Values of a store that were not what had been put there"
        )
        self._errors = of_store("tamis_cache_errors", "Failures of a store", "reason")
        self._dropped = of_store(
            "tamis_cache_dropped_writes", "Scores not stored because the store was too slow or full"
        )
        self._shared = Counter(
            "tamis_cache_shared_pairs",
            "Pairs that another caller was having scored, and that were not scored again",
            registry=registry,
        )
        self._entries = Gauge(
            "tamis_cache_entries", "Scores in a store, as it says", ["store"], registry=registry
        )
        self._bytes = Gauge(
            "tamis_cache_bytes", "Memory they take, as it says", ["store"], registry=registry
        )
        self._up = Gauge(
            "tamis_cache_up",
            "1 unless a store failed when it was last asked",
            ["store"],
            registry=registry,
        )

    def observe_stores(self, stores: Sequence[StoreStatistics]) -> None:
        """Where each store stands now; one that is new has all its counters from here on."""
        for one in stores:
            for counter in (self._hits, self._misses, self._corrupt, self._dropped):
                counter.labels(one.name)
            self._up.labels(one.name).set(one.state == "ok")
            if one.n_entries is not None:
                self._entries.labels(one.name).set(one.n_entries)
            if one.n_bytes is not None:
                self._bytes.labels(one.name).set(one.n_bytes)

    def hits(self, store: str, n_pairs: int) -> None:
        self._hits.labels(store).inc(n_pairs)

    def misses(self, store: str, n_pairs: int) -> None:
        self._misses.labels(store).inc(n_pairs)

    def corrupt(self, store: str, n_pairs: int) -> None:
        self._corrupt.labels(store).inc(n_pairs)

    def failed(self, store: str, reason: str) -> None:
        self._errors.labels(store, reason).inc()

    def dropped_writes(self, store: str, n_pairs: int) -> None:
        self._dropped.labels(store).inc(n_pairs)

    def waited(self, n_pairs: int) -> None:
        self._shared.inc(n_pairs)
