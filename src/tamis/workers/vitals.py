"""Whether what runs the models can run them now, and if not, why."""

from collections.abc import Sequence

from tamis.engine.backend import Fault, SupervisedBackend
from tamis.workers.stall_detector import WatchedBackend


class Vitals:
    """Looks at the backends of all models of a server, each time it is asked."""

    def __init__(self) -> None:
        self._models: list[Sequence[SupervisedBackend]] = []

    def watch(self, backends: Sequence[SupervisedBackend]) -> None:
        """Look at one more model, which all of these run."""
        self._models.append(backends)

    @property
    def reason(self) -> str | None:
        """What is wrong, in a sentence; None if nothing is."""
        return "; ".join(fault.reason for fault in self._faults()) or None

    @property
    def is_down(self) -> bool:
        """Whether there is a model that nothing can run now."""
        return any(all(backend.fault for backend in backends) for backends in self._models)

    @property
    def is_stalled(self) -> bool:
        """Whether this process itself hangs: nothing but its end can help it."""
        each = [backend for backends in self._models for backend in backends]
        return any(isinstance(backend, WatchedBackend) and backend.fault for backend in each)

    def _faults(self) -> list[Fault]:
        each = [backend.fault for backends in self._models for backend in backends]
        return [fault for fault in each if fault is not None]
