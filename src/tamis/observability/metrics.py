"""Prometheus metrics, names in base units; each is recorded in one place."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from tamis.scheduler.execution import BatchReport, Observer
from tamis.scheduler.scheduler import SchedulerStatistics
from tamis.types import Usage

# a series of creation times beside every other one helps nobody
disable_created_metrics()  # type: ignore[no-untyped-call]  # its library leaves it untyped

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_PAIRS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class BatchMetrics(Observer):
    """How batches fare; recorded in the model thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._batch_pairs = Histogram(
            "tamis_batch_pairs", "Pairs in a forward pass", buckets=_PAIRS, registry=registry
        )
        self._batch_tokens = Histogram(
            "tamis_batch_tokens", "Tokens in a forward pass", buckets=_TOKENS, registry=registry
        )
        self._batch_requests = Histogram(
            "tamis_batch_requests",
            "Requests that share a forward pass",
            buckets=_REQUESTS,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "tamis_batch_duration_seconds",
            "Duration of a forward pass",
            buckets=_SECONDS,
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
        """See `Observer.batch_done`."""
        self._batch_pairs.observe(report.n_pairs)
        self._batch_tokens.observe(report.n_tokens)
        self._batch_requests.observe(report.n_jobs)
        self._batch_seconds.observe(report.seconds)

    def batch_failed(self) -> None:
        """See `Observer.batch_failed`."""
        self._failures.inc()

    def pairs_failed(self, n_pairs: int) -> None:
        """See `Observer.pairs_failed`."""
        self._failed_pairs.inc(n_pairs)

    def logits_not_finite(self, n_logits: int) -> None:
        """See `Observer.logits_not_finite`."""
        self._not_finite.inc(n_logits)

    def out_of_memory(self) -> None:
        """See `Observer.out_of_memory`."""
        self._out_of_memory.inc()

    def stand_in_took_over(self) -> None:
        """See `Observer.stand_in_took_over`."""
        self._stand_in.inc()


class Metrics:
    """All metrics of one server.

    Attributes:
        registry: Their own; who watches something else adds to it.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "tamis_requests", "Rerank requests answered", ["dialect", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "tamis_request_duration_seconds",
            "From the first byte of a rerank request to its answer",
            ["dialect"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._pairs = Counter("tamis_pairs", "Pairs answered", registry=registry)
        self._tokens = Counter("tamis_tokens", "Tokens of pairs answered", registry=registry)
        self._truncated = Counter(
            "tamis_truncated_pairs", "Pairs whose text was cut to fit", registry=registry
        )
        self.batches = BatchMetrics(registry)
        self._errors = Counter(
            "tamis_errors", "Rerank requests answered with an error", ["code"], registry=registry
        )
        self._refusals = Counter(
            "tamis_refusals", "Requests refused before any route", ["reason"], registry=registry
        )
        self._cancelled = Counter(
            "tamis_cancelled_requests", "Rerank requests whose caller left", registry=registry
        )
        self._degraded = Gauge(
            "tamis_degraded", "1 while the model does less than it could", registry=registry
        )
        self._worker_restarts = Counter(
            "tamis_worker_restarts", "Workers started in place of one lost", registry=registry
        )
        self._workers_ready = Gauge(
            "tamis_workers_ready", "Worker processes that answer", registry=registry
        )
        self._model = Info("tamis_model", "The model that is served", registry=registry)
        self._queue_tokens = Gauge(
            "tamis_queue_tokens", "Tokens waiting or running", registry=registry
        )
        self._queue_jobs = Gauge(
            "tamis_queue_requests", "Requests with pairs still waiting", registry=registry
        )

    def observe_request(self, *, dialect: str, status: int, seconds: float) -> None:
        """Record one answered rerank request."""
        self._requests.labels(dialect, str(status)).inc()
        self._request_seconds.labels(dialect).observe(seconds)

    def observe_usage(self, usage: Usage) -> None:
        """Record what a successful request cost."""
        self._pairs.inc(usage.n_pairs)
        self._tokens.inc(usage.n_tokens)
        self._truncated.inc(usage.n_truncated)

    def observe_error(self, code: str) -> None:
        """Record a rerank request that was answered with an error."""
        self._errors.labels(code).inc()

    def observe_refusal(self, reason: str) -> None:
        """Record a request that no route has seen: its bytes, host, origin or key."""
        self._refusals.labels(reason).inc()

    def observe_cancelled(self) -> None:
        """Record a caller who left before the answer."""
        self._cancelled.inc()

    def describe_model(self, *, name: str, runtime: str, device: str, dtype: str) -> None:
        """Say which model is served, and where it runs."""
        self._model.info({"name": name, "runtime": runtime, "device": device, "dtype": dtype})

    def observe_worker_restart(self) -> None:
        """Record a worker that is started in place of a lost one; from its thread."""
        self._worker_restarts.inc()

    def watch_workers(self, n_ready: Callable[[], int]) -> None:
        """Count the workers whenever metrics are asked for."""
        self._workers_ready.set_function(n_ready)

    def watch_queue(self, statistics: Callable[[], SchedulerStatistics]) -> None:
        """Read the queue whenever metrics are asked for."""
        self._queue_tokens.set_function(lambda: statistics().n_tokens)
        self._queue_jobs.set_function(lambda: statistics().n_queued_jobs)
        self._degraded.set_function(lambda: statistics().degraded is not None)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)
