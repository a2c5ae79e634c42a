"""Sends answers no faster than callers take them, and counts what they have not taken."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tamis.server.keys import ANYONE, Caller
from tamis.sharing import SharedRoom

PIECE_BYTES = 64 * 2**10
"""What is handed to a connection at a time; a shorter answer is handed over whole, uncounted."""


@dataclass(frozen=True, slots=True, eq=False)
class _Unsent:
    """An answer that is being sent, and the time that it has left."""

    key: str
    n_bytes: int
    time: asyncio.Timeout


class UnsentRoom:
    """What answers that are being sent may take in memory, together.

    Beyond it the answer that has been waiting longest, of the key that has most, loses its time.

    Args:
        max_bytes: Of all answers; a single one may have more.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._room = SharedRoom(max_bytes)
        self._unsent: dict[_Unsent, None] = {}

    @property
    def n_held(self) -> int:
        """Bytes of all answers that are being sent."""
        return self._room.n_held

    @contextmanager
    def hold(self, key: str, n_bytes: int, time: asyncio.Timeout) -> Generator[None]:
        """Count an answer while it is sent.

        Args:
            key: Whose it is.
            n_bytes: The number of its bytes.
            time: What ends its sending; it is called off early where others need the room.
        """
        newest = _Unsent(key, n_bytes, time)
        self._unsent[newest] = None
        self._room.add(key, n_bytes)
        try:
            while self._room.n_held > self._max_bytes and len(self._unsent) > 1:
                self._give_up(self._oldest_of_most(newest))
            yield
        finally:
            self._forget(newest)

    def _oldest_of_most(self, newest: _Unsent) -> _Unsent:
        others = [one for one in self._unsent if one is not newest]
        return max(others, key=lambda one: self._room.held_by(one.key))  # of equals the first

    def _give_up(self, one: _Unsent) -> None:
        self._forget(one)
        with suppress(RuntimeError):  # its time is over already
            one.time.reschedule(asyncio.get_running_loop().time())

    def _forget(self, one: _Unsent) -> None:
        if one in self._unsent:
            del self._unsent[one]
            self._room.add(one.key, -one.n_bytes)


class SendingMiddleware:
    """Hands long answers over piece by piece, and ends a connection that is too slow. Plain ASGI.

    Args:
        room: Where answers wait to be taken.
        seconds: How long each may take.
    """

    def __init__(self, app: ASGIApp, *, room: UnsentRoom, seconds: float) -> None:
        self._app = app
        self._room = room
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_or_drop(message: Message) -> None:
            try:
                await self._send(scope, message, send)
            except (TimeoutError, asyncio.CancelledError):  # cancelled: the time to drain is over
                await _drop(scope, receive)

        await self._app(scope, receive, send_or_drop)

    async def _send(self, scope: Scope, message: Message, send: Send) -> None:
        n_bytes = len(message.get("body", b""))
        if n_bytes <= PIECE_BYTES:
            await send(message)
            return
        caller: Caller = scope["state"].get("caller", ANYONE)
        async with asyncio.timeout(self._seconds) as time:
            with self._room.hold(caller.name, n_bytes, time):
                await _send_in_pieces(message, send)


async def _send_in_pieces(message: Message, send: Send) -> None:
    """Send a body; `send` returns when the connection takes more, so the last one when all went."""
    body = memoryview(message["body"])
    for start in range(0, len(body), PIECE_BYTES):
        piece = body[start : start + PIECE_BYTES]
        await send({"type": message["type"], "body": piece, "more_body": True})
    await send({**message, "body": b""})


async def _drop(scope: Scope, receive: Receive) -> None:
    """End a connection in the middle of an answer; returns when it is gone."""
    scope["state"]["drop_connection"]()
    while (await receive())["type"] != "http.disconnect":
        pass
