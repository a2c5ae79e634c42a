"""A request's body: read in time, within its bounds, unpacked no further than they allow."""

import asyncio
import sys
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from starlette.datastructures import Headers
from starlette.requests import Request

from tamis.errors import (
    BodyTooLargeError,
    MalformedBodyError,
    QueueFullError,
    SlowBodyError,
    UnsupportedMediaTypeError,
)
from tamis.server.media_type import require_json
from tamis.settings import LimitsSettings
from tamis.sharing import FairThread, SharedRoom

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

T = TypeVar("T")

PARSED_AT_ONCE_BYTES = 256 * 2**10
"""Larger bodies are parsed in a thread, not on the event loop."""
UNSUSPICIOUS_BYTES = 64 * 2**10
"""Up to here a ratio says nothing: one long run of blanks is no attack."""
STEP_BYTES = 64 * 2**10
"""Are unpacked at a time; the loop turns in between."""
PACKED_STEP_BYTES = 16 * 2**10
"""Of what has come, are unpacked at a time: some bytes take long and unpack to nothing."""
ZSTD_WINDOW_LOG = 23
"""8 MiB, all that RFC 9659 asks of a decoder."""
GZIP_WINDOW_BITS = 31
"""zlib's way to say: any window, with gzip's header and checksum."""


class Decompressor(Protocol):
    """What zlib's and zstd's decompressors have in common."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most this number of bytes, of all that was given so far."""
        ...

    @property
    def eof(self) -> bool:
        """Whether the packed data is complete."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""
        ...


class _Gzip:
    """zlib's decompressor; it keeps what it could not unpack yet, as zstd's does."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(GZIP_WINDOW_BITS)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """See `Decompressor`."""
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        """See `Decompressor`."""
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        """See `Decompressor`."""
        return self._zlib.unused_data


def _zstd() -> Decompressor:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=options)


ENCODINGS: dict[str, Callable[[], Decompressor] | None] = {
    "": None,
    "identity": None,
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "zstd": _zstd,
}
"""How each `Content-Encoding` is unpacked; None where there is nothing to do."""


class BodyRoom:
    """What the bodies of all callers may take in memory, together, shared by key.

    Args:
        max_bytes: Of all bodies, unpacked and then decoded.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._room = SharedRoom(max_bytes)

    @property
    def n_held(self) -> int:
        """Bytes that all bodies have now."""
        return self._room.n_held

    @contextmanager
    def share(self, key: str) -> Generator["BodyShare"]:
        """One request's part, which is given back at its end."""
        share = BodyShare(self, key)
        try:
            yield share
        finally:
            self._room.add(key, -share.n_bytes)

    def grow(self, key: str, n_more: int) -> None:
        """Take this number of bytes more for a key.

        Raises:
            QueueFullError: there is no room for them.
        """
        if n_more > 0 and self._room.shortage(key, n_more):
            raise QueueFullError(
                f"the requests that are here have {self.n_held:,} bytes and {n_more:,} more came, "
                f"at most {self._max_bytes:,} may; try again later"
            )
        self._room.add(key, n_more)


class BodyShare:
    """One request's part of a `BodyRoom`.

    Attributes:
        n_bytes: The number of bytes that it holds.
    """

    def __init__(self, room: BodyRoom, key: str) -> None:
        self._room = room
        self._key = key
        self.n_bytes = 0

    def hold(self, n_bytes: int) -> None:
        """Hold this number of bytes in all.

        Raises:
            QueueFullError: there is no room for them.
        """
        self._room.grow(self._key, n_bytes - self.n_bytes)
        self.n_bytes = n_bytes


async def read_body(request: Request, limits: LimitsSettings, share: BodyShare) -> bytearray:
    """The body, unpacked.

    Args:
        request: Whose it is.
        limits: How large it may be, and how slow.
        share: Of the room for all bodies; it holds this one from its first byte on.

    Raises:
        QueueFullError: there is no room for it and the others.
        UnsupportedMediaTypeError: it is said to be something else than JSON in UTF-8, or packed
            in a way that is not known.
        BodyTooLargeError: it has, or will have, more bytes than a body may.
        MalformedBodyError: it cannot be unpacked.
        SlowBodyError: it was not there in time.
        ClientDisconnect: the caller left in the middle of it.
    """
    require_json(request.headers)
    unpacking = _unpacking(request.headers, limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            await _collect(request, unpacking, share)
    except TimeoutError:
        raise SlowBodyError(f"the body did not arrive within {limits.body_seconds:g} s") from None
    return unpacking.finish()


async def parse_body(
    content: bytearray, parse: Callable[[bytearray], T], thread: FairThread, key: str
) -> T:
    """What a body says; the loop goes on while a large one is parsed, after those of other keys.

    Raises:
        TamisError: as `parse` does.
    """
    if len(content) <= PARSED_AT_ONCE_BYTES:
        return parse(content)
    return await thread.run(key, len(content), lambda: parse(content))


async def _collect(request: Request, unpacking: "Unpacking", share: BodyShare) -> None:
    """Read what comes; of a body that is not taken the protocol reads the rest over."""
    unpacking.require_promise()
    async for chunk in request.stream():
        unpacking.feed(chunk)
        await _unpack(unpacking, share)
    unpacking.end()
    await _unpack(unpacking, share)


async def _unpack(unpacking: "Unpacking", share: BodyShare) -> None:
    share.hold(unpacking.n_bytes)
    for _ in unpacking.steps():
        share.hold(unpacking.n_bytes)
        await asyncio.sleep(0)
    share.hold(unpacking.n_bytes)


class Unpacking:
    """Puts a body together, byte for byte or by a decompressor.

    How far a packed body may be unpacked depends on its length. While nobody knows that, it is
    unpacked as far as what has come allows, and the rest waits.

    Args:
        decompressor: None for bytes that are not packed.
        max_bytes: Bytes that may come in, and go out.
        max_ratio: Bytes that may go out for one that came in, all together.
        max_window_bytes: Decompressed bytes that the decompressor itself keeps.
        n_promised: Bytes that will come in; None if nobody knows.
    """

    def __init__(
        self,
        decompressor: Decompressor | None,
        max_bytes: int,
        *,
        max_ratio: int,
        max_window_bytes: int = 0,
        n_promised: int | None = None,
    ) -> None:
        self._decompressor = decompressor
        self._is_packed = decompressor is not None
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._max_window_bytes = max_window_bytes
        self._n_promised = n_promised
        self._n_received = 0
        self._packed = bytearray()
        self._has_more = False
        self._body = bytearray()

    @property
    def n_bytes(self) -> int:
        """What it holds by now: bytes of both kinds, and the decompressor's window."""
        n_unpacked = len(self._body)
        n_window = min(n_unpacked, self._max_window_bytes) if self._decompressor else 0
        return len(self._packed) + n_unpacked + n_window

    def require_promise(self) -> None:
        """Refuse a body of which more will come than may.

        Raises:
            BodyTooLargeError: it is one.
        """
        if (self._n_promised or 0) > self._max_bytes:
            raise self._too_large()

    def feed(self, data: bytes) -> None:
        """Take what has come; `steps` unpacks it.

        Raises:
            BodyTooLargeError: it is too much.
        """
        self._n_received += len(data)
        if self._n_received > self._max_bytes:
            raise self._too_large()
        if self._is_packed:
            self._packed += data
        else:
            self._body += data

    def end(self) -> None:
        """The body is complete; `steps` unpacks the rest."""
        self._n_promised = self._n_received

    def steps(self) -> Generator[None]:
        """Unpack as far as may be by now, a step for each item.

        Raises:
            BodyTooLargeError: it is too much, unpacked.
            MalformedBodyError: it cannot be unpacked.
        """
        while self._decompressor and (self._has_more or self._packed) and self._n_wanted():
            self._unpack(self._decompressor, self._n_wanted())
            yield
        if self._packed and not self._decompressor:
            raise MalformedBodyError("there are bytes after the compressed body")

    def finish(self) -> bytearray:
        """All of it, once nothing is left to unpack.

        Raises:
            MalformedBodyError: it was cut short.
        """
        if self._decompressor and self._n_received:
            raise MalformedBodyError("the compressed body is cut short")
        return self._body

    def _n_wanted(self) -> int:
        """Bytes to unpack next: one too many where that decides."""
        most = self._most_unpacked()
        decides = self._n_promised is not None or most == self._max_bytes
        return min(STEP_BYTES, most + decides - len(self._body))

    def _unpack(self, decompressor: Decompressor, n_wanted: int) -> None:
        n_packed = 0 if self._has_more else PACKED_STEP_BYTES
        data = bytes(self._packed[:n_packed])
        del self._packed[:n_packed]
        try:
            unpacked = decompressor.decompress(data, n_wanted)
        except (zlib.error, zstd.ZstdError):
            raise MalformedBodyError("the body does not match its `Content-Encoding`") from None
        self._body += unpacked
        self._has_more = len(unpacked) == n_wanted
        if len(self._body) > self._most_unpacked():
            raise self._too_large()
        if decompressor.unused_data:
            raise MalformedBodyError("there are bytes after the compressed body")
        if decompressor.eof:
            self._decompressor = None  # its window goes with it

    def _most_unpacked(self) -> int:
        """Bytes that the body may have: by all of it, however it is cut, or by what is known."""
        n_packed = self._n_received if self._n_promised is None else self._n_promised
        return min(self._max_bytes, max(UNSUSPICIOUS_BYTES, self._max_ratio * n_packed))

    def _too_large(self) -> BodyTooLargeError:
        packed = self._decompressor is not None
        but = f", unpacked, or more than {self._max_ratio} times its packed size" if packed else ""
        return BodyTooLargeError(
            f"the body has more than {self._max_bytes:,} bytes{but}; split the request"
        )


def _unpacking(headers: Headers, limits: LimitsSettings) -> Unpacking:
    given = ",".join(headers.getlist("content-encoding")).strip().lower()
    if given not in ENCODINGS:
        raise UnsupportedMediaTypeError(
            "this `Content-Encoding` is not supported; use gzip or zstd"
        )
    make = ENCODINGS[given]
    length = headers.get("content-length")
    return Unpacking(
        make() if make else None,
        limits.max_body_bytes,
        max_ratio=limits.max_unpacked_ratio,
        max_window_bytes=2**ZSTD_WINDOW_LOG if make is _zstd else 0,
        n_promised=None if length is None else int(length),
    )
