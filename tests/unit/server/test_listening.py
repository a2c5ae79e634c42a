"""The limit on connections: which are closed to make room, and which wait."""

import asyncio
import errno
import resource
from typing import Any, cast

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from tamis.server import listening
from tamis.server.listening import (
    LEAST_CONNECTIONS,
    MOST_CONNECTIONS,
    SPARE_FILES,
    SPARED_SECONDS,
    ConnectionTable,
    Listener,
    connection_limit,
)


class Transport:
    """Of a connection that may be closing."""

    def __init__(self) -> None:
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing


class Cycle:
    """A request, at work or answered."""

    def __init__(self, *, response_complete: bool) -> None:
        self.response_complete = response_complete


class Timer:
    """uvicorn's, of a connection that was kept alive."""

    def __init__(self, when: float) -> None:
        self._when = when

    def when(self) -> float:
        return self._when


class Connection:
    """A protocol as the table sees it."""

    timeout_keep_alive = 75

    def __init__(self) -> None:
        self.transport = Transport()
        self.cycle: Cycle | None = None
        self.timeout_keep_alive_task: Timer | None = None

    def shutdown(self) -> None:
        assert self.cycle is None or self.cycle.response_complete
        self.transport.closing = True


class Table:
    """A table with connections of doubles, and a clock."""

    def __init__(self, limit: int) -> None:
        self.now = 1000.0
        self.open: set[Any] = set()
        self.table = ConnectionTable(self.open, limit, lambda: self.now)

    def add(self, *, rests: float | None = None, busy: bool = False) -> Connection:
        """A new connection, or one whose last answer is some seconds old."""
        one = Connection()
        if busy:
            one.cycle = Cycle(response_complete=False)
        if rests is not None:
            one.cycle = Cycle(response_complete=True)
            one.timeout_keep_alive_task = Timer(self.now - rests + one.timeout_keep_alive)
        self.open.add(one)
        self.table.add(cast("H11Protocol", one))
        return one


def test_who_has_never_asked_makes_room_first_and_then_who_rests_longest() -> None:
    held = Table(4)
    first = held.add()
    held.now += 10
    busy, lately, long_ago = held.add(busy=True), held.add(rests=5), held.add(rests=20)
    for expected in (first, long_ago, lately):
        assert held.table.make_room()
        assert [one for one in held.open if one.transport.closing] == [expected]
        held.open.discard(expected)
    assert not held.table.make_room()
    assert not busy.transport.closing


def test_a_new_connection_gets_the_time_to_ask() -> None:
    held = Table(1)
    one = held.add()
    assert not held.table.make_room()
    held.now += SPARED_SECONDS
    assert held.table.make_room()
    assert one.transport.closing
    assert not held.table.make_room()  # it is closing already


def test_of_many_some_make_room_together() -> None:
    held = Table(320)
    for _ in range(320):
        held.add(rests=1)
    assert held.table.make_room()
    assert sum(one.transport.closing for one in held.open) == 20


def test_a_connection_that_has_gone_is_forgotten() -> None:
    held = Table(10)
    for _ in range(100):
        held.open.discard(held.add())
    assert len(held.table._accepted) <= 1


def test_the_limit_is_what_open_files_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(soft: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))

    limited(10_000)
    found = connection_limit()
    assert 9000 < found < 10_000 - SPARE_FILES
    assert connection_limit(100) == found - 100
    limited(16)
    assert connection_limit() == LEAST_CONNECTIONS
    limited(resource.RLIM_INFINITY)
    assert connection_limit() == MOST_CONNECTIONS


class Refusing:
    """A socket from which the system accepts nothing."""

    def __init__(self) -> None:
        self.n_asked = 0

    def setblocking(self, _flag: bool) -> None:
        """Nothing blocks."""

    def listen(self, _backlog: int) -> None:
        """Nobody comes."""

    def fileno(self) -> int:
        return 1_000_000

    def accept(self) -> None:
        self.n_asked += 1
        raise OSError(errno.EMFILE, "Too many open files")


async def test_a_system_without_descriptors_is_asked_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    readers: list[Any] = []
    monkeypatch.setattr(loop, "add_reader", lambda _, call: readers.append(call))
    monkeypatch.setattr(loop, "remove_reader", lambda _: readers.clear())
    refusing: Any = Refusing()
    listener = Listener(refusing, ConnectionTable(set(), 10), cast("Any", None), 5)
    readers[0]()
    assert refusing.n_asked == 1
    assert readers == []
    assert "no connection can be accepted: Too many open files" in caplog.text
    listener.resume()
    assert readers == []
    monkeypatch.setattr(loop, "time", lambda: 1e9)
    listener.resume()
    assert len(readers) == 1
    monkeypatch.setattr(listening, "PAUSE_SECONDS", 0.0)
    listener.close()
    listener.resume()
    assert readers == []
