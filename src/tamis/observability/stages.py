"""How long each stage of a request takes."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Histogram

from tamis.timing import STAGES, BatchRun, Stage, StageObserver

_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)


class StageMetrics(StageObserver):
    """How long each stage of a request takes; one that fails counts too, as far as it got."""

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "tamis_stage_duration_seconds",
            "Time that a rerank request spent in one of its stages",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stages = {name: seconds.labels(name) for name in STAGES}

    def stage(self, name: Stage) -> AbstractContextManager[object]:
        """See `StageObserver.stage`."""
        return self._stages[name].time()

    def passed(
        self, name: Stage, started: float, ended: float, batches: Sequence[BatchRun] = ()
    ) -> None:
        """See `StageObserver.passed`."""
        self._stages[name].observe(ended - started)
