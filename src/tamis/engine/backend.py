"""Pairs in, logits out: the seam between the engine and everything that schedules work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tamis.engine.collate import collate
from tamis.engine.heads.head import Head, Matches
from tamis.engine.padding import Padding
from tamis.engine.pairs import EncodedPair, Logits
from tamis.engine.runtime import Runtime


class Backend(Protocol):
    """Scores pairs. `forward` is called from one thread at a time."""

    def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
        """Logits (n_pairs,) of at least one pair, in their order."""
        ...

    def close(self) -> None:
        """Give back what it holds; it is not used after it."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a backend cannot run a batch now.

    Attributes:
        reason: A sentence for a person, without any text of a caller's.
        is_lasting: Whether there is no point in waiting for it.
    """

    reason: str
    is_lasting: bool


@runtime_checkable
class SupervisedBackend(Backend, Protocol):
    """A backend that may be unavailable for a while, until its supervisor restarts it."""

    @property
    def fault(self) -> Fault | None:
        """Why it cannot run a batch now; None while it can. From any thread."""
        ...

    def wait_until_available(self, seconds: float) -> None:
        """Return when it can run a batch, or after the given time."""
        ...


@runtime_checkable
class RestartableBackend(SupervisedBackend, Protocol):
    """A supervised backend that can be restarted on request."""

    def restart(self, reason: str) -> None:
        """Replace the process that runs it; returns at once, and it is unavailable for a while."""
        ...


class LocalBackend:
    """A runtime and a head in this process."""

    def __init__(self, runtime: Runtime, head: Head) -> None:
        self.runtime = runtime
        self.head = head

    @property
    def padding(self) -> Padding:
        return self.runtime.padding

    def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
        batch = collate(pairs)
        return self.head.logits(self.runtime.forward(batch), batch)

    def explain(self, pair: EncodedPair) -> Matches | None:
        """What each query token found; None where the head reads both texts together."""
        if not self.head.reads_tokens:
            return None
        batch = collate([pair])
        return self.head.matches(self.runtime.forward(batch), batch, 0)

    def close(self) -> None:
        self.runtime.close()
