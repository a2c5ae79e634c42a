import asyncio
from typing import Literal

from tamis.server.middleware.sending import UnsentRoom

Fate = Literal["sent", "dropped"]


async def send(room: UnsentRoom, key: str, n_bytes: int, *, taken: asyncio.Event | None) -> Fate:
    """Hold an answer until it is taken, or its time is over."""
    try:
        async with asyncio.timeout(0 if taken is None else 60) as time:
            with room.hold(key, n_bytes, time):
                await (taken or asyncio.Event()).wait()
    except TimeoutError:
        return "dropped"
    return "sent"


async def test_row_62_an_answer_whose_time_is_over_makes_room_like_any_other() -> None:
    """Its timeout has expired, and its task has not run since."""
    room, taken = UnsentRoom(100), asyncio.Event()
    taken.set()
    slow = asyncio.create_task(send(room, "slow", 90, taken=None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert slow.cancelling()
    assert await send(room, "quick", 50, taken=taken) == "sent"
    assert await slow == "dropped"
    assert room.n_held == 0


async def test_row_62_the_one_that_has_waited_longest_makes_room() -> None:
    room, taken = UnsentRoom(100), asyncio.Event()
    sending = [asyncio.create_task(send(room, "a", 50, taken=taken)) for _ in range(3)]
    assert await sending[0] == "dropped"
    assert room.n_held == 100
    taken.set()
    assert await asyncio.gather(*sending[1:]) == ["sent", "sent"]
    assert room.n_held == 0
