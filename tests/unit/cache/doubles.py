"""Stores that remember what was asked of them."""

from collections.abc import Sequence

from tamis.cache.store import CacheObserver, StoreStatistics


class DictStore:
    """A store without bounds.

    Attributes:
        entries: What it holds; tests may change it.
        asked: The keys of each reading.
    """

    def __init__(self, name: str = "dict") -> None:
        self.name = name
        self.entries: dict[bytes, bytes] = {}
        self.asked: list[list[bytes]] = []
        self.is_closed = False

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `ByteStore.get_many`."""
        self.asked.append(list(keys))
        return [self.entries.get(key) for key in keys]

    async def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """See `ByteStore.put_many`."""
        self.entries.update(items)

    async def clear(self, namespace: bytes | None = None) -> int:
        """See `ByteStore.clear`."""
        n_entries = len(self.entries)
        self.entries.clear()
        return n_entries

    async def statistics(self) -> StoreStatistics:
        """See `ByteStore.statistics`."""
        return StoreStatistics(self.name, len(self.entries), None)

    async def close(self) -> None:
        """See `ByteStore.close`."""
        self.is_closed = True


class Tally(CacheObserver):
    """Counts what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int]] = []
        self.n_waited = 0

    def hits(self, store: str, n_pairs: int) -> None:
        """See `CacheObserver.hits`."""
        self.heard.append((store, "hits", n_pairs))

    def misses(self, store: str, n_pairs: int) -> None:
        """See `CacheObserver.misses`."""
        self.heard.append((store, "misses", n_pairs))

    def corrupt(self, store: str, n_pairs: int) -> None:
        """See `CacheObserver.corrupt`."""
        self.heard.append((store, "corrupt", n_pairs))

    def waited(self, n_pairs: int) -> None:
        """See `CacheObserver.waited`."""
        self.n_waited += n_pairs
