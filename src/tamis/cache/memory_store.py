"""Scores in this process, the least lately used going first."""

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from tamis.cache.store import StoreStatistics

ENTRY_BYTES = 400
"""What Python takes for a key, a value, the time and their place: counted by a test."""

TTL_JITTER = 0.1
"""Share of its time that an entry may go earlier: what came together does not go together."""


class MemoryStore:
    """A store bounded by bytes and age. Belongs to one event loop.

    Args:
        max_bytes: Of memory, by `ENTRY_BYTES` for each entry.
        ttl_seconds: How long an entry is kept.
        clock: Seconds that only go up.
    """

    name = "memory"

    def __init__(
        self,
        *,
        max_bytes: int,
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = max_bytes // ENTRY_BYTES
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        now = self._clock()
        return [self._get(key, now) for key in keys]

    async def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        now = self._clock()
        for key, value in items:
            kept = self._ttl_seconds * (1 - TTL_JITTER * random.random())  # noqa: S311 - no secret
            self._entries[key] = (value, now + kept)
            self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    async def clear(self, namespace: bytes | None = None) -> int:
        gone = [key for key in self._entries if namespace is None or key.startswith(namespace)]
        for key in gone:
            del self._entries[key]
        return len(gone)

    async def statistics(self) -> StoreStatistics:
        n_entries = len(self._entries)
        return StoreStatistics(self.name, n_entries, n_entries * ENTRY_BYTES)

    async def close(self) -> None:
        self._entries.clear()

    def _get(self, key: bytes, now: float) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, ends = entry
        if ends <= now:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value
