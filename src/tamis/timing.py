"""What a request goes through, and who wants to know how long each part of it took."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

Phase = Literal["decode", "cache", "encode", "queue", "forward", "rank", "respond"]
"""In a request's order; in a cascade those from `cache` to `forward` come twice."""

PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True, slots=True)
class BatchRun:
    """A batch that a request had pairs in.

    Attributes:
        started: When it began, in seconds of `time.monotonic()`.
        ended: When it was done.
        n_pairs: Of all requests in it.
        n_tokens: Of all requests in it.
        n_requests: How many shared it.
    """

    started: float
    ended: float
    n_pairs: int
    n_tokens: int
    n_requests: int


class PhaseObserver:
    """What wants to know how requests get on; each method is called in the request's own task."""

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        """What is entered where a phase begins, and left where it ends."""
        return nullcontext()

    def passed(
        self, name: Phase, started: float, ended: float, batches: Sequence[BatchRun] = ()
    ) -> None:
        """A phase is over that was spent waiting.

        Args:
            name: Which.
            started: When it began, in seconds of `time.monotonic()`.
            ended: When it was over.
            batches: What ran in it.
        """


class PhaseObservers(PhaseObserver):
    """Several of them as one."""

    def __init__(self, *observers: PhaseObserver) -> None:
        self._observers = observers

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        """Time the phase with every observer."""
        entered = ExitStack()
        for observer in self._observers:
            entered.enter_context(observer.phase(name))
        return entered

    def passed(
        self, name: Phase, started: float, ended: float, batches: Sequence[BatchRun] = ()
    ) -> None:
        """Report a past phase to every observer."""
        for observer in self._observers:
            observer.passed(name, started, ended, batches)
