"""Reads replies of Redis within bounds, so that no reply holds the event loop or fills memory.

redis-py's parsers, hiredis's too, take a reply of any length, and make room for as many elements as
its first line claims. Anyone who can write to the network in between, or controls the Redis, would
stop the server with a few bytes.
"""

import asyncio
import re
from typing import Any

from redis import exceptions
from redis._parsers import _AsyncRESP2Parser  # redis-py has no public one to build on

MOST_ELEMENTS = 100_000
"""Of a reply, nested ones included; COMMAND of a Redis with modules has 15,000."""
MOST_DEPTH = 16
"""Arrays within arrays; COMMAND has 8."""
MOST_LINE_BYTES = 64 * 2**10
"""Of a line without its end: an error, a status, a number or a length."""
MOST_BULK_BYTES = 2**20
"""Of one value; a score has 20, INFO and CLUSTER SLOTS some thousands."""
MOST_REPLY_BYTES = 8 * 2**20
READ_BYTES = 2**13
"""Read and parsed in one go: a millisecond or two where elements are as short as they can be."""

_BULK = re.compile(rb"\$(\d{1,7})\r\n")
"""How a value begins; more digits are more than `MOST_BULK_BYTES`."""
_DIGITS = re.compile(rb"-?\d{1,20}")


class BoundedParser(_AsyncRESP2Parser):
    """redis-py's parser of RESP2, with an end to every reply; values stay bytes.

    A reply beyond the bounds, or one that is not RESP2, raises `InvalidResponse`, on which redis-py
    closes the connection.
    """

    async def read_response(self, disable_decoding: bool = False) -> Any:  # noqa: FBT001, FBT002 - redis-py's signature
        """Read the next reply; an error reply is returned as an object."""
        if not self._connected or self._stream is None:
            raise exceptions.ConnectionError("the connection to Redis is closed")
        reply, n_bytes = Reply(), 0
        while True:
            n_taken = reply.take(self._buffer)
            self._buffer = self._buffer[n_taken:]
            if reply.is_whole:
                break
            chunk = await self._stream.read(READ_BYTES)
            if not chunk:
                raise exceptions.ConnectionError("Redis has closed the connection")
            self._buffer += chunk
            n_bytes += len(chunk)
            if n_bytes > MOST_REPLY_BYTES:
                raise exceptions.InvalidResponse(f"a reply of more than {MOST_REPLY_BYTES:,} bytes")
            await asyncio.sleep(0)  # a reply that is there already would be read without a pause
        return self._checked(reply.value)

    def _checked(self, value: object) -> object:
        """The value; errors that redis-py has no reply for are raised, as its own parser does."""
        if not isinstance(value, ErrorLine):
            return value
        error = self.parse_error(value.text)  # type: ignore[no-untyped-call]  # its library leaves it untyped
        if isinstance(error, exceptions.ConnectionError):
            raise error
        return error


class ErrorLine:
    """What a line that begins with `-` says."""

    def __init__(self, line: bytes) -> None:
        self.text = line.decode("utf-8", errors="replace")


class Reply:
    """One reply, taken from bytes as they come.

    Attributes:
        value: Bytes, a number, None, an `ErrorLine`, or a list of such, once it is whole.
        is_whole: Whether it is.
    """

    def __init__(self) -> None:
        self.value: object = None
        self.is_whole = False
        self._open: list[tuple[list[object], int]] = []
        self._n_elements = 0

    def take(self, data: bytes) -> int:
        """Take what is whole, and return how many bytes that was.

        Raises:
            InvalidResponse: this is no reply, or one beyond the bounds.
        """
        at = 0
        while not self.is_whole:
            bulk = _BULK.match(data, at)
            if bulk is not None:
                start, end = bulk.end(), bulk.end() + int(bulk[1])
                if data[end : end + 2] != b"\r\n":
                    self._require_possible(end - start, data[end : end + 2])
                    break
                self._add(data[start:end])
                at = end + 2
                continue
            end = data.find(b"\r\n", at)
            if (len(data) if end < 0 else end) - at > MOST_LINE_BYTES:
                raise exceptions.InvalidResponse(f"a line of more than {MOST_LINE_BYTES:,} bytes")
            if end < 0:
                break
            self._take_line(data[at : at + 1], data[at + 1 : end])
            at = end + 2
        return at

    def _require_possible(self, n_bytes: int, after: bytes) -> None:
        """A value that is not whole may be still to come, or be none."""
        if n_bytes > MOST_BULK_BYTES:
            raise exceptions.InvalidResponse(f"a value of {n_bytes:,} bytes")
        if not b"\r\n".startswith(after):
            raise exceptions.InvalidResponse("a value that does not end where it says")

    def _take_line(self, kind: bytes, line: bytes) -> None:
        """An array's first line, or a value that is one line."""
        if kind == b"*":
            self._take_array(_number(line))
        elif kind == b"+":
            self._add(line)
        elif kind == b":":
            self._add(_number(line))
        elif kind == b"-":
            self._add(ErrorLine(line))
        elif kind + line == b"$-1":
            self._add(None)
        else:
            raise exceptions.InvalidResponse(f"no reply of RESP2 begins with {kind!r}")

    def _take_array(self, n_elements: int) -> None:
        if n_elements <= 0:
            if n_elements < -1:
                raise exceptions.InvalidResponse(f"an array of {n_elements:,} elements")
            self._add([] if n_elements == 0 else None)
            return
        self._n_elements += n_elements
        if self._n_elements > MOST_ELEMENTS or len(self._open) >= MOST_DEPTH:
            raise exceptions.InvalidResponse(
                f"a reply of {self._n_elements:,} elements in {len(self._open) + 1} levels"
            )
        self._open.append(([], n_elements))

    def _add(self, value: object) -> None:
        """One value more, and every array that it completes."""
        while self._open:
            found, n_elements = self._open[-1]
            found.append(value)
            if len(found) < n_elements:
                return
            value = found
            self._open.pop()
        self.value, self.is_whole = value, True


def _number(digits: bytes) -> int:
    if not _DIGITS.fullmatch(digits):
        raise exceptions.InvalidResponse("no number where one should be")
    return int(digits)
