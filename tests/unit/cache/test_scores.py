from tamis.cache.memory_store import MemoryStore
from tamis.cache.scores import ScoreCache
from tamis.types import PairScore
from tests.unit.cache.doubles import DictStore, Tally

A, B, C = (letter * 48 for letter in (b"a", b"b", b"c"))
ONE, TWO = PairScore(1.0, 5, truncated=False), PairScore(2.0, 6, truncated=True)


def cache_in(*stores: DictStore, observer: Tally | None = None) -> ScoreCache:
    return ScoreCache(stores, secret=b"s", observer=observer)


async def test_scores_are_kept_in_every_store_and_found_in_the_nearest() -> None:
    near, far = DictStore("near"), DictStore("far")
    tally = Tally()
    cache = cache_in(near, far, observer=tally)

    await cache.put_many({A: ONE, B: TWO})

    assert set(near.entries) == set(far.entries) == {A, B}
    assert await cache.get_many([B, A]) == [TWO, ONE]
    assert far.asked == []
    assert ("near", "hits", 2) in tally.heard


async def test_what_only_the_far_store_has_is_put_into_the_near_one() -> None:
    near, far = DictStore("near"), DictStore("far")
    tally = Tally()
    cache = cache_in(near, far, observer=tally)
    await cache.put_many({A: ONE, B: TWO})
    near.entries.pop(A)

    assert await cache.get_many([A, B, C]) == [ONE, TWO, None]

    assert far.asked == [[A, C]]
    assert near.entries[A] == far.entries[A]
    assert tally.heard == [
        ("near", "hits", 1),
        ("near", "misses", 2),
        ("far", "hits", 1),
        ("far", "misses", 1),
    ]


async def test_spoilt_and_swapped_values_are_misses_and_counted() -> None:
    store, tally = DictStore("one"), Tally()
    cache = cache_in(store, observer=tally)
    await cache.put_many({A: ONE, B: TWO})
    store.entries[A], store.entries[B] = store.entries[B], store.entries[A][:-1]

    assert await cache.get_many([A, B]) == [None, None]
    assert ("one", "corrupt", 2) in tally.heard


async def test_a_score_that_is_not_finite_is_not_kept() -> None:
    store = DictStore()
    cache = cache_in(store)

    await cache.put_many({A: PairScore(float("nan"), 1, truncated=False), B: ONE})

    assert set(store.entries) == {B}


async def test_without_stores_nothing_is_known() -> None:
    cache = cache_in()
    await cache.put_many({A: ONE})

    assert await cache.get_many([A]) == [None]
    assert await cache.statistics() == []


async def test_statistics_and_the_end_reach_every_store() -> None:
    far = DictStore("far")
    cache = ScoreCache([MemoryStore(max_bytes=10_000, ttl_seconds=5), far], secret=b"s")
    await cache.put_many({A: ONE})

    assert [(one.name, one.n_entries) for one in await cache.statistics()] == [
        ("memory", 1),
        ("far", 1),
    ]
    await cache.close()
    assert far.is_closed
