import tracemalloc

import pytest

from tamis.cache.memory_store import ENTRY_BYTES, TTL_JITTER, MemoryStore
from tamis.cache.store import KEY_BYTES


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def store_of(n_entries: int, clock: Clock) -> MemoryStore:
    return MemoryStore(max_bytes=n_entries * ENTRY_BYTES, ttl_seconds=10, clock=clock)


def key(number: int, namespace: bytes = b"n" * 16) -> bytes:
    return namespace + number.to_bytes(32, "big")


async def test_what_was_put_is_there_and_nothing_else(clock: Clock) -> None:
    store = store_of(10, clock)
    await store.put_many([(key(1), b"one"), (key(2), b"two")])
    await store.put_many([(key(1), b"uno")])

    assert await store.get_many([key(2), key(3), key(1)]) == [b"two", None, b"uno"]


async def test_the_least_lately_used_goes_first(clock: Clock) -> None:
    store = store_of(2, clock)
    await store.put_many([(key(1), b"1"), (key(2), b"2")])
    await store.get_many([key(1)])

    await store.put_many([(key(3), b"3")])

    assert await store.get_many([key(1), key(2), key(3)]) == [b"1", None, b"3"]


async def test_an_entry_ends_within_its_time_and_not_much_before(clock: Clock) -> None:
    store = store_of(100, clock)
    await store.put_many([(key(n), b"x") for n in range(50)])

    clock.now += 10 * (1 - TTL_JITTER) - 0.01
    assert None not in await store.get_many([key(n) for n in range(50)])
    clock.now += 0.5
    n_left = 50 - (await store.get_many([key(n) for n in range(50)])).count(None)
    assert 0 < n_left < 50
    clock.now += 0.6
    assert set(await store.get_many([key(n) for n in range(50)])) == {None}
    assert (await store.statistics()).n_entries == 0


async def test_a_namespace_is_cleared_alone_and_all_at_once(clock: Clock) -> None:
    store = store_of(100, clock)
    other = b"o" * 16
    await store.put_many([(key(1), b"1"), (key(2), b"2"), (key(1, other), b"3")])

    assert await store.clear(b"n" * 16) == 2
    assert await store.get_many([key(1), key(1, other)]) == [None, b"3"]
    assert await store.clear() == 1


async def test_its_memory_is_what_it_says(clock: Clock) -> None:
    n_entries = 25_000
    tracemalloc.start()
    store = store_of(n_entries, clock)
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2 * n_entries):
        await store.put_many([(number.to_bytes(KEY_BYTES, "big"), number.to_bytes(16, "big"))])
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    statistics = await store.statistics()
    assert statistics.n_entries == n_entries
    assert statistics.n_bytes == n_entries * ENTRY_BYTES
    assert 0.5 < used / statistics.n_bytes <= 1.0
