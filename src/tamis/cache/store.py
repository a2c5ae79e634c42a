"""The protocol of the cache's stores, and the observer of what happens in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

NAMESPACE_BYTES = 16
KEY_BYTES = NAMESPACE_BYTES + 32
"""A namespace's digest, then a pair's: all keys of a namespace begin alike."""


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """A store at one moment.

    Attributes:
        n_entries: Scores in it; None where it does not say.
        n_bytes: What they take; None where it does not say.
        state: `ok`, or in a word what is wrong.
    """

    name: str
    n_entries: int | None
    n_bytes: int | None
    state: str = "ok"


class ByteStore(Protocol):
    """Bytes by key, for a while. It knows nothing of pairs, and fails no request.

    Keys have `KEY_BYTES`; what comes back for one may be anything: who asks looks whether it is
    what was put there (`values.py`).
    """

    @property
    def name(self) -> str:
        """For metrics."""
        ...

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """A value, or None, for each key; None for all when the store cannot say in time."""
        ...

    async def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep values by their keys; or not, where the store cannot. Does not wait for it."""
        ...

    async def clear(self, namespace: bytes | None = None) -> int:
        """Forget what is in a namespace, or all; returns how many entries."""
        ...

    async def statistics(self) -> StoreStatistics:
        """Where it stands now."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...


class CacheObserver:
    """Observes the cache; called on the event loop."""

    def hits(self, store: str, n_pairs: int) -> None:
        """Pairs were found in a store."""

    def misses(self, store: str, n_pairs: int) -> None:
        """Pairs were not in a store."""

    def corrupt(self, store: str, n_pairs: int) -> None:
        """Values of a store were corrupt."""

    def failed(self, store: str, reason: str) -> None:
        """A store could not answer; reasons are a fixed few."""

    def dropped_writes(self, store: str, n_pairs: int) -> None:
        """Scores were not stored because there was no time or room."""

    def waited(self, n_pairs: int) -> None:
        """Pairs were being scored for another caller and not scored twice."""
