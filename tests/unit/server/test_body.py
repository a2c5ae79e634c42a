import threading

import pytest

from tamis.errors import QueueFullError
from tamis.server.body import PARSED_AT_ONCE_BYTES, BodyRoom, parse_body
from tamis.sharing import FairThread


@pytest.mark.parametrize("n_more", [0, 1])
async def test_a_large_body_is_parsed_beside_the_event_loop(n_more: int) -> None:
    parsing: list[int] = []

    def parse(content: bytearray) -> int:
        parsing.append(threading.get_ident())
        return len(content)

    n_bytes = PARSED_AT_ONCE_BYTES + n_more
    thread = FairThread("parser")

    parsed = await parse_body(bytearray(n_bytes), parse, thread, "key")

    assert parsed == n_bytes
    assert [ident != threading.get_ident() for ident in parsing] == [bool(n_more)]
    await thread.close()


def test_a_body_that_shrinks_when_it_is_decoded_gives_room_back() -> None:
    room = BodyRoom(100)
    with room.share("a") as first, room.share("a") as second:
        first.hold(100)
        with pytest.raises(QueueFullError):
            second.hold(1)
        first.hold(10)
        second.hold(90)
    assert room.n_held == 0


def test_one_keys_bodies_leave_the_other_its_half() -> None:
    room = BodyRoom(100)
    with room.share("loud") as loud, room.share("quiet") as quiet:
        loud.hold(100)
        quiet.hold(50)
        with pytest.raises(QueueFullError):
            quiet.hold(51)
        with pytest.raises(QueueFullError):
            loud.hold(101)
