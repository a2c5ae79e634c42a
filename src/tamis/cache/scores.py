"""Scores by key, from the nearest store that has them."""

from collections.abc import Sequence

from tamis.cache.store import ByteStore, CacheObserver, StoreStatistics
from tamis.cache.values import ScoreCodec, decode_many
from tamis.types import PairScore


class ScoreCache:
    """Stores behind one another, the nearest first. Belongs to one event loop.

    Args:
        stores: What a farther one has is put into the nearer ones.
        secret: That values are tied to their keys with.
        observer: Hears of hits and misses.
    """

    def __init__(
        self,
        stores: Sequence[ByteStore],
        *,
        secret: bytes,
        observer: CacheObserver | None = None,
    ) -> None:
        self._stores = tuple(stores)
        self._codec = ScoreCodec(secret)
        self.observer = observer or CacheObserver()

    async def get_many(self, keys: Sequence[bytes]) -> list[PairScore | None]:
        """What is kept under each key; None where nothing is."""
        found: dict[bytes, PairScore] = {}
        for number, store in enumerate(self._stores):
            missing = [key for key in keys if key not in found]
            if not missing:
                break
            here = await self._look(store, missing)
            await self._put(self._stores[:number], here)
            found |= here
        return [found.get(key) for key in keys]

    async def put_many(self, scores: dict[bytes, PairScore]) -> None:
        """Keep scores in every store; does not wait for those that take time."""
        await self._put(self._stores, scores)

    async def statistics(self) -> list[StoreStatistics]:
        """Where each store stands now."""
        return [await store.statistics() for store in self._stores]

    async def close(self) -> None:
        """Give everything back."""
        for store in self._stores:
            await store.close()

    async def _look(self, store: ByteStore, keys: list[bytes]) -> dict[bytes, PairScore]:
        values = await store.get_many(keys)
        scores, n_corrupt = decode_many(self._codec, keys, values)
        here = {key: score for key, score in zip(keys, scores, strict=True) if score is not None}
        self.observer.hits(store.name, len(here))
        self.observer.misses(store.name, len(keys) - len(here))
        if n_corrupt:
            self.observer.corrupt(store.name, n_corrupt)
        return here

    async def _put(self, stores: Sequence[ByteStore], scores: dict[bytes, PairScore]) -> None:
        values = ((key, self._codec.encode(key, score)) for key, score in scores.items())
        items = [(key, value) for key, value in values if value is not None]
        for store in stores if items else ():
            await store.put_many(items)
