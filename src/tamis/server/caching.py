"""The cache that the settings ask for."""

from tamis.cache.base import ByteStore, CacheObserver
from tamis.cache.keys import NO_SECRET
from tamis.cache.memory import MemoryStore
from tamis.cache.scores import ScoreCache
from tamis.settings import CacheSettings


def make_cache(settings: CacheSettings, observer: CacheObserver | None = None) -> ScoreCache:
    """Stores as the settings name them, the nearest first; call from the event loop."""
    stores: list[ByteStore] = []
    if settings.memory_bytes:
        stores.append(
            MemoryStore(max_bytes=settings.memory_bytes, ttl_seconds=settings.ttl_seconds)
        )
    return ScoreCache(stores, secret=secret_of(settings), observer=observer)


def secret_of(settings: CacheSettings) -> bytes:
    """What keys are made under."""
    secret = settings.secret
    return secret.get_secret_value().encode() if secret is not None else NO_SECRET
