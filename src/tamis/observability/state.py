"""How the server is: its model, its workers, its queue. Read whenever metrics are asked for."""

import platform
from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Info

import tamis
from tamis.engine.facts import ModelFacts
from tamis.scheduler.scheduler import SchedulerStatistics


class Connections(Protocol):
    """Those of a server."""

    limit: int

    @property
    def n_open(self) -> int:
        """Now."""
        ...


class Room(Protocol):
    """One that callers share."""

    @property
    def n_held(self) -> int:
        """Bytes that they hold of it."""
        ...


class StateMetrics:
    """Metrics of the server's current state and of its version."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ready = Gauge("tamis_ready", "1 while /readyz answers 200", registry=registry)
        self._stalled = Gauge(
            "tamis_stalled", "1 while a model hangs in the server's own process", registry=registry
        )
        self._degraded = Gauge(
            "tamis_degraded", "1 while the model does less than it could", registry=registry
        )
        self._worker_restarts = Counter(
            "tamis_worker_restarts", "Restarts of worker processes", registry=registry
        )
        self._workers_ready = Gauge(
            "tamis_workers_ready", "Worker processes that are up", registry=registry
        )
        self._queue_tokens = Gauge(
            "tamis_queue_tokens", "Tokens waiting or running", registry=registry
        )
        self._queue_limit = Gauge(
            "tamis_queue_limit_tokens", "Tokens that may wait or run", registry=registry
        )
        self._queue_jobs = Gauge(
            "tamis_queue_requests", "Requests with pairs still waiting", registry=registry
        )
        self._connections = Gauge(
            "tamis_connections", "Connections of callers that are open", registry=registry
        )
        self._connections_limit = Gauge(
            "tamis_connections_limit", "Connections that may be open", registry=registry
        )
        self._body_bytes = Gauge(
            "tamis_body_bytes", "Bytes that callers' bodies hold", registry=registry
        )
        self._unsent_bytes = Gauge(
            "tamis_unsent_bytes", "Bytes of long answers that are being sent", registry=registry
        )
        self._model = Info("tamis_model", "The model that is served", registry=registry)
        build = Info("tamis_build", "The version that runs", registry=registry)
        build.info({"version": tamis.__version__, "python": platform.python_version()})

    def describe_model(self, facts: ModelFacts) -> None:
        """Say which model is served, and where it runs."""
        self._model.info(
            {
                "name": facts.name,
                "runtime": facts.runtime,
                "device": facts.device,
                "dtype": facts.dtype,
            }
        )

    def observe_worker_restart(self) -> None:
        """Record a restart of a worker; from its supervisor's thread."""
        self._worker_restarts.inc()

    def watch_life(self, *, is_ready: Callable[[], bool], is_stalled: Callable[[], bool]) -> None:
        """Ask whether the server can answer."""
        self._ready.set_function(is_ready)
        self._stalled.set_function(is_stalled)

    def watch_connections(self, connections: Callable[[], Connections | None]) -> None:
        """Count the connections, once there can be any."""

        def read(count: Callable[[Connections], int]) -> float:
            found = connections()
            return 0.0 if found is None else float(count(found))

        self._connections.set_function(lambda: read(lambda one: one.n_open))
        self._connections_limit.set_function(lambda: read(lambda one: one.limit))

    def watch_rooms(self, *, bodies: Room, unsent: Room) -> None:
        """Count what callers hold of the rooms that they share."""
        self._body_bytes.set_function(lambda: bodies.n_held)
        self._unsent_bytes.set_function(lambda: unsent.n_held)

    def watch_workers(self, n_ready: Callable[[], int]) -> None:
        """Count the workers."""
        self._workers_ready.set_function(n_ready)

    def watch_queue(
        self, statistics: Callable[[], SchedulerStatistics], *, max_tokens: int
    ) -> None:
        """Read the queue and its limit in tokens."""
        self._queue_limit.set(max_tokens)
        self._queue_tokens.set_function(lambda: statistics().n_tokens)
        self._queue_jobs.set_function(lambda: statistics().n_queued_jobs)
        self._degraded.set_function(lambda: statistics().degraded is not None)
