"""The store of scores in a real Redis: what it keeps, for how long, and what it leaves alone."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tamis.cache import redis as redis_module
from tamis.cache.redis import KEY_PREFIX, RedisStore
from tamis.cache.redis_url import parse_redis_url
from tamis.cache.store import KEY_BYTES, CacheObserver
from tamis.errors import CacheUnreachableError
from tests.redis_servers import RedisServer, free_port, running_redis

PATIENT = 5.0
"""Seconds, for what is no test of the bounds: the machine may be busy."""


class Counts(CacheObserver):
    """Counts what the store says of itself."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.n_dropped = 0

    def failed(self, store: str, reason: str) -> None:
        assert store == "redis"
        self.failures.append(reason)

    def dropped_writes(self, store: str, n_pairs: int) -> None:
        self.n_dropped += n_pairs


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """A store on an empty Redis."""
    redis_server.client.flushall()
    opened = store_on(redis_server.url)
    yield opened
    await opened.close()


def store_on(
    url: str,
    *,
    ttl_seconds: float = 60.0,
    timeout_seconds: float = PATIENT,
    counts: Counts | None = None,
) -> RedisStore:
    return RedisStore(
        parse_redis_url(url),
        ttl_seconds=ttl_seconds,
        timeout_seconds=timeout_seconds,
        observer=counts,
    )


async def written(store: RedisStore) -> None:
    """Wait until nothing waits to be written."""
    while store._writer is not None and not store._writer.done():
        await asyncio.wait({store._writer})


def pairs(n_items: int, namespace: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Keys of a namespace with values of any bytes."""
    rest = KEY_BYTES - len(namespace)
    return [(namespace + os.urandom(rest), os.urandom(20)) for _ in range(n_items)]


async def test_what_is_put_is_there_and_nothing_else_is(store: RedisStore) -> None:
    items, strange = pairs(50), pairs(1)
    await store.put_many(items)
    await written(store)
    found = await store.get_many([strange[0][0], *(key for key, _ in items)])
    assert found == [None, *(value for _, value in items)]


async def test_a_read_is_one_command_and_so_is_connecting(
    store: RedisStore, redis_server: RedisServer
) -> None:
    await store.put_many(pairs(3))
    await written(store)
    redis_server.client.config_resetstat()
    await store.get_many([key for key, _ in pairs(50)])
    asked = redis_server.client.info("commandstats")
    calls = {name: told["calls"] for name, told in asked.items() if "config" not in name}
    assert calls == {"cmdstat_mget": 1}


async def test_it_waits_for_no_write(store: RedisStore, redis_server: RedisServer) -> None:
    redis_server.freeze()
    try:
        await asyncio.wait_for(store.put_many(pairs(1000)), PATIENT)
    finally:
        redis_server.thaw()
    await written(store)
    assert redis_server.client.dbsize() == 1000


async def test_entries_go_after_their_time_and_not_together(redis_server: RedisServer) -> None:
    redis_server.client.flushall()
    store = store_on(redis_server.url, ttl_seconds=100.0)
    await store.put_many(pairs(200))
    await written(store)
    left = {redis_server.client.pttl(key) for key in redis_server.client.keys("*")}
    assert 80_000 < min(left) < 95_000 < max(left) <= 100_000
    await store.close()


async def test_without_keys_nobody_is_asked() -> None:
    counts = Counts()
    store = store_on(f"redis://127.0.0.1:{free_port()}", counts=counts)
    assert await store.get_many([]) == []
    assert counts.failures == []


async def test_clearing_a_namespace_leaves_the_others_and_what_is_not_ours(
    store: RedisStore, redis_server: RedisServer
) -> None:
    strange = b"*?[a-z]\\^$" + b"x" * 6  # as a pattern it would fit others
    one, other = pairs(1500, strange), pairs(20, b"z" * 16)
    await store.put_many([*one, *other])
    await written(store)
    redis_server.client.set("tamis:of-somebody-else", "1")
    redis_server.client.set("other", "1")
    assert (await store.survey()).n_entries == 1520
    assert await store.clear(strange) == 1500
    assert await store.get_many([key for key, _ in other]) == [value for _, value in other]
    assert await store.clear() == 20
    assert redis_server.client.dbsize() == 2


async def test_a_survey_counts_up_to_a_bound(store: RedisStore) -> None:
    await store.put_many(pairs(2500))
    await written(store)
    whole = await store.survey()
    assert (whole.n_entries, whole.is_all) == (2500, True)
    assert whole.n_used_bytes is not None
    assert whole.n_used_bytes > 100_000
    part = await store.survey(most=1000)
    assert part.n_entries < 2500
    assert not part.is_all


async def test_a_user_without_info_and_scripts_can_do_all_that_the_store_does(
    store: RedisStore, redis_server: RedisServer
) -> None:
    rights = ("reset", "on", ">secret", "~tamis:*", "-@all", "+mget", "+get", "+set", "+unlink")
    redis_server.client.execute_command("ACL", "SETUSER", "tamis", *rights, "+scan", "+select")
    counts = Counts()
    url = f"redis://tamis:secret@127.0.0.1:{redis_server.port}/0"
    limited = store_on(url, counts=counts)
    ((key, value),) = pairs(1)
    await limited.put_many([(key, value)])
    await written(limited)
    assert await limited.get_many([key]) == [value]
    survey = await limited.survey()
    assert (survey.n_entries, survey.n_used_bytes) == (1, None)
    assert await limited.clear() == 1
    assert counts.failures == []
    await limited.close()


async def test_people_are_told_that_nobody_answers() -> None:
    store = store_on(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(CacheUnreachableError, match="unreachable"):
        await store.clear()
    with pytest.raises(CacheUnreachableError, match="unreachable"):
        await store.survey()
    await store.close()


async def test_writes_beyond_the_bound_are_dropped_and_counted(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.client.flushall()
    monkeypatch.setattr(redis_module, "MOST_WAITING_ITEMS", 100)
    counts = Counts()
    store = store_on(redis_server.url, counts=counts)
    for _ in range(3):  # none is written before somebody waits
        await store.put_many(pairs(40))
    await written(store)
    assert counts.n_dropped == 40
    assert redis_server.client.dbsize() == 80
    await store.close()


async def test_writes_to_nobody_are_dropped_and_counted() -> None:
    counts = Counts()
    store = store_on(f"redis://127.0.0.1:{free_port()}", counts=counts)
    for _ in range(7):
        await store.put_many(pairs(10))
        await written(store)
    assert counts.n_dropped == 70
    assert counts.failures == ["unreachable"] * 5
    assert (await store.statistics()).state == "unreachable"
    await store.close()


async def test_what_waits_is_written_before_it_closes(redis_server: RedisServer) -> None:
    redis_server.client.flushall()
    counts = Counts()
    store = store_on(redis_server.url, counts=counts)
    items = pairs(1200)
    await store.put_many(items)
    await store.close()
    assert redis_server.client.dbsize() == 1200
    await store.put_many(items)
    assert await store.get_many([items[0][0]]) == [None]
    assert counts.n_dropped == 1200


async def test_closing_does_not_wait_for_a_server_that_hangs(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        store = store_on(server.url, timeout_seconds=60)
        await store.put_many(pairs(1))
        await written(store)
        server.freeze()
        reading = asyncio.create_task(store.get_many([pairs(1)[0][0]]))
        await store.put_many(pairs(1))
        await asyncio.wait_for(store.close(), 30)
        assert await asyncio.wait_for(reading, 30) == [None]
        server.thaw()


async def test_a_socket_is_as_good_as_a_port(redis_server: RedisServer) -> None:
    store = store_on(f"unix://{redis_server.socket_path}?db=1")
    ((key, value),) = pairs(1)
    await store.put_many([(key, value)])
    await written(store)
    assert await store.get_many([key]) == [value]
    assert redis_server.client.get(KEY_PREFIX + key) is None  # it is in the other database
    await store.close()
