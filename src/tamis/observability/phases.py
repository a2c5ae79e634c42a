"""How long each phase of a request takes."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Histogram

from tamis.timing import PHASES, BatchRun, Phase, PhaseObserver

_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)


class PhaseMetrics(PhaseObserver):
    """How long each phase of a request takes; one that fails counts too, as far as it got."""

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "tamis_stage_duration_seconds",
            "Time that a rerank request spent in one of its phases",
            ["stage"],  # the label's name on the wire
            buckets=_SECONDS,
            registry=registry,
        )
        self._phases = {name: seconds.labels(name) for name in PHASES}

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        """Observe the duration of a phase."""
        return self._phases[name].time()

    def passed(
        self, name: Phase, started: float, ended: float, batches: Sequence[BatchRun] = ()
    ) -> None:
        """Observe a phase that has passed already."""
        self._phases[name].observe(ended - started)
