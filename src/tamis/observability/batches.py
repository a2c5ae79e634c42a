"""Metrics of batches: size, duration, waste and failures."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from tamis.scheduler.observer import BatchObserver, BatchReport

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class BatchMetrics(BatchObserver):
    """Metrics of batches, recorded in the model thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pairs = Histogram(
            "tamis_batch_pairs", "Pairs in a forward pass", buckets=_PAIRS, registry=registry
        )
        self._tokens = Histogram(
            "tamis_batch_tokens", "Tokens in a forward pass", buckets=_TOKENS, registry=registry
        )
        self._requests = Histogram(
            "tamis_batch_requests",
            "Requests that share a forward pass",
            buckets=_REQUESTS,
            registry=registry,
        )
        self._seconds = Histogram(
            "tamis_batch_duration_seconds",
            "Duration of a forward pass",
            buckets=_SECONDS,
            registry=registry,
        )
        self._computed = Counter(
            "tamis_computed_tokens",
            "Tokens that went through the model; a query that documents share counts once",
            registry=registry,
        )
        self._padding = Counter(
            "tamis_padding_tokens",
            "Padding that attention added to reach a common length",
            registry=registry,
        )
        self._failures = Counter(
            "tamis_batch_failures", "Forward passes that failed", registry=registry
        )
        self._failed_pairs = Counter(
            "tamis_failed_pairs", "Pairs that got no logit", registry=registry
        )
        self._not_finite = Counter(
            "tamis_logits_not_finite", "Logits that were no number, each time", registry=registry
        )
        self._out_of_memory = Counter(
            "tamis_out_of_memory", "Forward passes that lacked memory", registry=registry
        )
        self._stand_in = Counter(
            "tamis_stand_ins", "Devices given up for another", registry=registry
        )

    def batch_done(self, report: BatchReport) -> None:
        self._pairs.observe(report.n_pairs)
        self._tokens.observe(report.n_tokens)
        self._requests.observe(report.n_jobs)
        self._seconds.observe(report.seconds)
        self._computed.inc(report.n_computed_tokens)
        self._padding.inc(report.n_padding_tokens)

    def batch_failed(self) -> None:
        self._failures.inc()

    def pairs_failed(self, n_pairs: int) -> None:
        self._failed_pairs.inc(n_pairs)

    def logits_not_finite(self, n_logits: int) -> None:
        self._not_finite.inc(n_logits)

    def out_of_memory(self) -> None:
        self._out_of_memory.inc()

    def stand_in_took_over(self) -> None:
        self._stand_in.inc()
