"""Prometheus metrics, names in base units; each is recorded in one place."""

from prometheus_client import (
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from tamis.errors import TamisError
from tamis.observability.batches import BatchMetrics
from tamis.observability.cache import CacheMetrics
from tamis.observability.devices import DeviceMetrics
from tamis.observability.faults import SafeRegistry
from tamis.observability.log_metrics import LogMetrics
from tamis.observability.memory_gauges import MemoryMetrics
from tamis.observability.phases import PhaseMetrics
from tamis.observability.state import StateMetrics
from tamis.types import Usage

# an additional series of creation times per metric helps nobody
disable_created_metrics()  # type: ignore[no-untyped-call]  # its library leaves it untyped

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """All metrics of one server, in a registry of their own: requests here, the rest by subject.

    Attributes:
        registry: Their own; who watches something else adds to it.
        faults: What has failed in watching, and nobody else.
        state: How the server is.
        phases: Where requests spend their time.
        batches: Metrics of batches.
        cache: Metrics of the cache.
        devices: What runs the models.
        logs: Metrics of the log.
    """

    def __init__(self) -> None:
        self.registry = registry = SafeRegistry()
        self.faults = registry.faults
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
        self._errors = Counter(
            "tamis_errors", "Rerank requests answered with an error", ["code"], registry=registry
        )
        for code in _error_codes(TamisError):
            self._errors.labels(code)  # a rate needs the 0 that comes before the first of them
        self._refusals = Counter(
            "tamis_refusals", "Requests refused before any route", ["reason"], registry=registry
        )
        self._cancelled = Counter(
            "tamis_cancelled_requests", "Rerank requests whose caller left", registry=registry
        )
        self.state = StateMetrics(registry)
        self.phases = PhaseMetrics(registry)
        self.batches = BatchMetrics(registry)
        self.cache = CacheMetrics(registry)
        self.devices = DeviceMetrics(registry)
        self.logs = LogMetrics(registry)
        MemoryMetrics(registry)

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

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)


def _error_codes(cls: type[TamisError]) -> set[str]:
    """Of an error and of all below it."""
    return {cls.code}.union(*(_error_codes(child) for child in cls.__subclasses__()))
