import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.sharing import FairThread, SharedRoom


def test_one_key_may_have_all_of_a_room() -> None:
    room = SharedRoom(100)
    assert room.shortage("a", 100) == 0
    room.add("a", 60)
    assert (room.shortage("a", 40), room.shortage("a", 41)) == (0, 1)


def test_a_full_room_still_has_an_equal_share_for_another_key() -> None:
    room = SharedRoom(100)
    room.add("loud", 100)
    assert room.shortage("quiet", 50) == 0
    assert room.shortage("quiet", 51) == 51
    room.add("quiet", 50)
    assert room.shortage("loud", 1) == 51
    assert room.shortage("third", 33) == 0
    room.add("loud", -100)
    assert (room.n_held, room.held_by("loud"), room.held_by("quiet")) == (50, 0, 50)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 120)), max_size=60))
def test_what_keys_hold_together_is_bounded(asked: list[tuple[str, int]]) -> None:
    room = SharedRoom(100)
    for key, n_more in asked:
        if not room.shortage(key, n_more):
            room.add(key, n_more)
    assert room.n_held <= 100 * sum(1 / n for n in range(1, 6))


class Order:
    """Work that notes that it was done; the first of it waits until it may go on."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.begun = threading.Event()
        self.may_go_on = threading.Event()

    def hold(self) -> None:
        """Keep the thread busy."""
        self.begun.set()
        assert self.may_go_on.wait(60)

    def __call__(self, name: str) -> None:
        """Note it."""
        self.done.append(name)


async def begin(thread: FairThread, order: Order) -> list["asyncio.Task[None]"]:
    """Give the thread all that it takes at once, so that what comes then has to wait."""
    tasks = [asyncio.create_task(thread.run("", 1, order.hold)) for _ in range(thread.AT_ONCE)]
    await asyncio.to_thread(order.begun.wait, 60)
    return tasks


def add(thread: FairThread, order: Order, key: str, n_work: int) -> "asyncio.Task[None]":
    """Work that notes its key."""
    return asyncio.create_task(thread.run(key, n_work, lambda: order(key)))


async def test_the_key_that_was_given_least_goes_next() -> None:
    thread, order = FairThread("test"), Order()
    tasks = await begin(thread, order)
    tasks += [add(thread, order, "loud", 100) for _ in range(6)]
    await asyncio.sleep(0)
    tasks += [add(thread, order, "quiet", 10) for _ in range(6)]
    await asyncio.sleep(0)
    order.may_go_on.set()
    await asyncio.gather(*tasks)
    assert order.done == ["loud", *["quiet"] * 6, *["loud"] * 5]
    await thread.close()


async def test_work_whose_caller_has_left_is_not_done() -> None:
    thread, order = FairThread("test"), Order()
    tasks = await begin(thread, order)
    waiting = [add(thread, order, f"caller {n}", 1) for n in range(6)]
    await asyncio.sleep(0)
    for task in waiting[1::2]:
        task.cancel()
    order.may_go_on.set()
    await asyncio.gather(*tasks, *waiting, return_exceptions=True)
    assert order.done == ["caller 0", "caller 2", "caller 4"]
    await thread.close()


async def test_a_caller_who_leaves_when_its_turn_has_come_passes_it_on() -> None:
    thread, order = FairThread("test"), Order()
    for _ in range(thread.AT_ONCE):
        await thread._turn("", 1)
    first, second = add(thread, order, "first", 1), add(thread, order, "second", 1)
    await asyncio.sleep(0)
    thread._give_next()
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert order.done == ["second"]
    await thread.close()


async def test_what_the_work_raises_is_raised_and_the_next_is_done() -> None:
    thread, order = FairThread("test"), Order()

    def fail() -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await thread.run("a", 1, fail)
    await thread.run("a", 1, lambda: order("a"))
    assert order.done == ["a"]
    await thread.close()
