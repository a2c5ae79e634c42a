"""The cache that the settings ask for."""

import logging
from importlib import import_module

from tamis.cache.memory_store import MemoryStore
from tamis.cache.pair_keys import NO_SECRET
from tamis.cache.scores import ScoreCache
from tamis.cache.store import ByteStore, CacheObserver
from tamis.settings import CacheSettings

logger = logging.getLogger(__name__)


def make_cache(settings: CacheSettings, observer: CacheObserver | None = None) -> ScoreCache:
    """Stores as the settings name them, the nearest first; call from the event loop."""
    stores: list[ByteStore] = []
    if settings.memory_bytes:
        stores.append(
            MemoryStore(max_bytes=settings.memory_bytes, ttl_seconds=settings.ttl_seconds)
        )
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
        stores.append(_redis_store(url, settings, observer))
    return ScoreCache(stores, secret=secret_of(settings), observer=observer)


def require_cache(settings: CacheSettings) -> None:
    """Find out early whether `make_cache` can make it; a Redis need not be there yet.

    Raises:
        SettingsError: the URL of the Redis has another form, or redis-py is not installed.
    """
    if settings.redis_url is not None:
        from tamis.cache.redis_url import parse_redis_url

        import_module("tamis.cache.redis")  # it refuses where redis-py is not there
        parse_redis_url(settings.redis_url.get_secret_value())


def _redis_store(url: str, settings: CacheSettings, observer: CacheObserver | None) -> ByteStore:
    from tamis.cache.redis import RedisStore
    from tamis.cache.redis_url import parse_redis_url

    if not settings.secret:  # an empty one, as of a variable that nobody has filled, is none
        logger.warning(
            "cache.secret is not set: anyone who can write to the Redis can forge scores"
        )
    return RedisStore(
        parse_redis_url(url),
        ttl_seconds=settings.ttl_seconds,
        timeout_seconds=settings.redis_timeout_ms / 1000,
        observer=observer,
    )


def secret_of(settings: CacheSettings) -> bytes:
    """What keys are made under."""
    secret = settings.secret
    return secret.get_secret_value().encode() if secret else NO_SECRET
