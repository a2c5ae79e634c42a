"""Accepts connections, at most as many as the system's limit of open files has room for.

asyncio accepts until there are no descriptors left, and then fails, once a second and for every
connection that waits. By then nothing else can be opened either: no file, no Redis, no worker.
"""

import asyncio
import errno
import heapq
import logging
import resource
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

SPARE_FILES = 24
"""For files, pipes and connections of the server's own, beyond those that it is told of."""
LEAST_CONNECTIONS = 8
MOST_CONNECTIONS = 2**17
"""Where the system has no limit."""
ACCEPTS_IN_TURN = 64
"""On one socket before anything else has its turn."""
SPARED_SECONDS = 0.1
"""How long a connection is at rest before it makes room for another."""
CLOSED_SHARE = 1 / 16
"""Of all connections, closed together, so that they are not searched for each."""
PAUSE_SECONDS = 1.0
"""After the system has refused to accept one."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
MakeProtocol = Callable[[], H11Protocol]


def connection_limit(n_others: int = 0) -> int:
    """Connections that may be open at once in addition to what is open now.

    Args:
        n_others: Files that are still to be opened, beyond `SPARE_FILES`.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    n_open = len(list(Path("/dev/fd").iterdir()))
    n_left = soft - n_open - SPARE_FILES - n_others
    return max(LEAST_CONNECTIONS, min(n_left, MOST_CONNECTIONS))


class ConnectionTable:
    """All connections of a server, and how many there may be.

    Args:
        connections: uvicorn's set of those that are open.
        limit: At most.
        clock: Seconds of the event loop.
    """

    def __init__(
        self,
        connections: Iterable[Any],
        limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = cast("set[H11Protocol]", connections)
        self._clock = clock
        self._accepted: WeakKeyDictionary[H11Protocol, float] = WeakKeyDictionary()
        self.limit = limit

    @property
    def n_open(self) -> int:
        """Connections there are."""
        return len(self._connections)

    def add(self, protocol: H11Protocol) -> None:
        """Note when a connection began."""
        self._accepted[protocol] = self._clock()

    def make_room(self) -> bool:
        """Close some connections on which nothing goes on.

        Those that have never asked anything go first, then those that rest longest.

        Returns:
            Whether there were any.
        """
        before = self._clock() - SPARED_SECONDS
        resting = [
            (has_asked, since, number, one)
            for number, (has_asked, since, one) in enumerate(map(self._resting, self._connections))
            if since <= before and _rests(one)
        ]
        chosen = heapq.nsmallest(max(1, int(self.limit * CLOSED_SHARE)), resting)
        for *_, protocol in chosen:
            protocol.shutdown()
        return bool(chosen)

    def _resting(self, protocol: H11Protocol) -> tuple[bool, float, H11Protocol]:
        """Whether it has asked before, and since when it rests if it does."""
        timer = protocol.timeout_keep_alive_task
        if timer is not None:  # since its last answer
            return True, timer.when() - protocol.timeout_keep_alive, protocol
        return False, self._accepted.get(protocol, 0.0), protocol


def _rests(protocol: H11Protocol) -> bool:
    """Whether no request is being read, computed or answered."""
    cycle = cast("Any", protocol.cycle)
    is_idle = cycle is None or cycle.response_complete
    return is_idle and not protocol.transport.is_closing()


class Listener:
    """Accepts on one socket while there is room.

    Args:
        listening: A socket that is bound.
        table: Of all connections, which other listeners may share.
        make_protocol: Makes what serves a connection.
        backlog: Connections that the system keeps waiting.
    """

    def __init__(
        self,
        listening: socket.socket,
        table: ConnectionTable,
        make_protocol: MakeProtocol,
        backlog: int,
    ) -> None:
        self._socket = listening
        self._table = table
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._paused_until: float | None = None
        listening.setblocking(False)  # noqa: FBT003 - its one argument has no name
        listening.listen(backlog)
        self._loop.add_reader(listening, self._accept_some)

    def resume(self) -> None:
        """Go on accepting after a pause; called ten times a second."""
        if self._paused_until is not None and self._loop.time() >= self._paused_until:
            self._paused_until = None
            self._loop.add_reader(self._socket, self._accept_some)

    def close(self) -> None:
        """Accept no more; the socket stays open."""
        self._paused_until = None
        self._loop.remove_reader(self._socket)

    def _accept_some(self) -> None:
        for _ in range(ACCEPTS_IN_TURN):
            if self._table.n_open + len(self._connecting) >= self._table.limit:
                if not self._table.make_room():
                    logger.warning("all %d connections are taken: new ones wait", self._table.limit)
                    self._pause(0.0)
                return
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                logger.error("no connection can be accepted: %s", error.strerror)  # noqa: TRY400 - no news in the trace
                self._pause(PAUSE_SECONDS)
                return
            connection.setblocking(False)  # noqa: FBT003 - its one argument has no name
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            _, protocol = await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError as error:
            logger.info("a connection was lost while it was accepted: %s", error.strerror)
            connection.close()
        else:
            self._table.add(protocol)

    def _pause(self, seconds: float) -> None:
        """Until the next call of `resume`, or a later one; the system keeps who comes waiting."""
        self._loop.remove_reader(self._socket)
        self._paused_until = self._loop.time() + seconds


class BoundedServer(uvicorn.Server):
    """uvicorn's server, with an end to its connections.

    Args:
        n_other_files: Files and connections of its own that the server may open later.

    Attributes:
        connections: All of them, once it has started.
    """

    def __init__(self, config: uvicorn.Config, *, n_other_files: int = 0) -> None:
        super().__init__(config)
        self._n_other_files = n_other_files
        self._listeners: list[Listener] = []
        self.connections: ConnectionTable | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving on the given sockets."""
        await super().startup(sockets=[])
        limit = connection_limit(self._n_other_files)
        self.connections = ConnectionTable(self.server_state.connections, limit)
        make = partial(
            cast("type[H11Protocol]", self.config.http_protocol_class),
            self.config,
            self.server_state,
            self.lifespan.state,
        )
        self._listeners = [
            Listener(one, self.connections, make, self.config.backlog) for one in sockets or []
        ]

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times per second; True ends the server."""
        for listener in self._listeners:
            listener.resume()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving and close the connections."""
        for listener in self._listeners:
            listener.close()
        await super().shutdown(sockets)
