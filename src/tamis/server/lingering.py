"""A connection that is closed only when the caller can have read its answer."""

import asyncio
from collections.abc import Callable
from typing import Any

MOST_DISCARDED_BYTES = 64 * 2**20
"""Of a body whose request was answered without it."""


class LingeringTransport(asyncio.Transport):
    """A transport that, when it is closed on unread bytes, reads them over first.

    A socket that is closed on unread bytes resets the connection, and the reset takes an answer
    with it that the caller has not read yet. So the sending side is closed, what still comes is
    discarded, and the end is the caller's, or that of a bound in bytes and seconds.

    Args:
        transport: The connection.
        has_unread: Whether there are bytes that nobody has read, or will be.
        seconds: How long to read on.

    Attributes:
        is_lingering: Whether incoming bytes are discarded.
        n_discarded: Bytes of one body that were discarded.
    """

    def __init__(
        self, transport: asyncio.Transport, *, has_unread: Callable[[], bool], seconds: float
    ) -> None:
        super().__init__()
        self._transport = transport
        self._has_unread = has_unread
        self._seconds = seconds
        self.n_discarded = 0
        self._timer: asyncio.TimerHandle | None = None
        self.is_lingering = False

    def close(self) -> None:
        """Close, or begin to."""
        if self.is_lingering:
            return
        if self._transport.is_closing() or not self._has_unread():
            self._transport.close()
            return
        self.is_lingering = True
        try:
            self._transport.write_eof()
        except OSError:  # the caller has reset it
            self._transport.abort()
            return
        self._transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._transport.close)

    def close_now(self) -> None:
        """Close whatever has not been read."""
        self._transport.close()

    def discard(self, n_bytes: int) -> None:
        """Count bytes that nobody wanted; too many end the connection."""
        self.n_discarded += n_bytes
        if self.n_discarded > MOST_DISCARDED_BYTES:
            self._transport.close()

    def lost(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self.is_lingering or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write unless the last answer has been written."""
        if not self.is_lingering:
            self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
