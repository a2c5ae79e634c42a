"""HTTP/1.1 as bytes: where a request and its body begin and end, read in one way only.

h11 parses. What it leaves to others is here: bounds, and refusing every shape that two servers
could read in two ways. Heads are looked at before h11 sees them, because its patterns take seconds
for 32 KiB that match almost.
"""

import re
from typing import Literal, Protocol

import h11

from tamis.settings import LimitsSettings

RefusalReason = Literal["malformed_request", "headers_too_large", "too_many_chunks", "slow_headers"]

STATUSES: dict[RefusalReason, tuple[int, bytes]] = {
    "malformed_request": (400, b"Bad Request"),
    "slow_headers": (408, b"Request Timeout"),
    "too_many_chunks": (413, b"Content Too Large"),
    "headers_too_large": (431, b"Request Header Fields Too Large"),
}
MAX_HEADERS = 64
"""Of a request."""
MAX_CHUNKS = 8192
"""That a body may come in."""
FREE_CHUNKS = 256
"""Of a body, may have any size; beyond them they need `LEAST_CHUNK_BYTES` on average."""
LEAST_CHUNK_BYTES = 64
"""Smaller ones cost more time to read than to send."""
JOINED_BYTES = 64 * 2**10
"""Chunks up to here are handed on as one."""
START_OF_AN_ANSWER = b"HTTP/1.1 "
LONGEST_FIRST_LINE_BYTES = 8000
"""All that RFC 9112 asks of a server."""

_MALFORMED = "this is not one plain HTTP/1.1 request"
_FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n"
_HEAD = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.[01]\r\n(?:" + _FIELD + rb")*\r\n")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_FRAMING = re.compile(rb"\n(content-length|transfer-encoding):([^\r]*)", re.IGNORECASE)
_TRAILER = re.compile(_FIELD)
_NO_TRAILER = re.compile(rb"(?:content-length|transfer-encoding|host):", re.IGNORECASE)
_CHUNK = re.compile(
    rb"(?P<size>[0-9A-Fa-f]{1,16})(?P<extension>[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n"
)


class RefusedRequest(h11.RemoteProtocolError):
    """Bytes that are not read on; its text has none of them."""

    def __init__(self, reason: RefusalReason, sentence: str = _MALFORMED) -> None:
        super().__init__(sentence, error_status_hint=STATUSES[reason][0])
        self.reason: RefusalReason = reason


class BoundedConnection(h11.Connection):
    """h11's parser, with the bounds and the strictness that it leaves to others.

    Attributes:
        refusal: Why it reads no further; None while it does.
        n_sent_early: Bytes of `START_OF_AN_ANSWER` that the caller has already.
    """

    def __init__(self, limits: LimitsSettings) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.max_header_bytes)
        self._limits = limits
        self._is_chunked = False
        self.refusal: RefusedRequest | None = None
        self.n_sent_early = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Parse the next event from the bytes received.

        Raises:
            RemoteProtocolError: there is a `refusal`.
        """
        if self.refusal is not None:
            raise self.refusal
        try:
            if self.their_state is h11.IDLE:
                self._look_at_head(self.trailing_data[0])
            event = super().next_event()
            if isinstance(event, h11.Request):
                _require_few(len(event.headers))
                if self._is_chunked:
                    self._reader = ChunkedReader(self._limits)
        except RefusedRequest as refusal:
            self.refusal = refusal
            raise
        except h11.RemoteProtocolError as error:
            self.refusal = self._foreign(error)
            raise
        return event

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Send an event, without bytes that were sent before the answer."""
        data = super().send_with_data_passthrough(event)
        if data and self.n_sent_early:
            data[0] = data[0][self.n_sent_early :]
            self.n_sent_early = 0
        return data

    def _look_at_head(self, received: bytes) -> None:
        """Refuse a head, once it is whole, that is too large or can be read in two ways."""
        end = _END_OF_HEAD.search(received)
        if end is None:
            return
        head = received[: end.end()]
        too_long = head.find(b"\n") > LONGEST_FIRST_LINE_BYTES
        if too_long or len(head) > self._limits.max_header_bytes:
            raise _too_large(self._limits)
        framing = _FRAMING.findall(head)
        if len(framing) > 1 or not _HEAD.fullmatch(head):
            raise RefusedRequest("malformed_request")
        name, value = framing[0] if framing else (b"", b"")
        self._is_chunked = name.lower() == b"transfer-encoding"
        if framing and not _is_plain(value.strip(b" \t"), is_chunked=self._is_chunked):
            raise RefusedRequest("malformed_request")
        if self._is_chunked and head[: head.find(b"\r")].endswith(b"HTTP/1.0"):
            raise RefusedRequest("malformed_request")

    def _foreign(self, error: h11.RemoteProtocolError) -> RefusedRequest:
        """An error of h11's own: its text may hold the caller's."""
        if error.error_status_hint == STATUSES["headers_too_large"][0]:
            return _too_large(self._limits)
        return RefusedRequest("malformed_request")


class Received(Protocol):
    """What h11 has of the bytes that came."""

    def maybe_extract_at_most(self, count: int, /) -> bytearray | None:
        """Up to that many bytes; None if there are none."""
        ...

    def maybe_extract_next_line(self) -> bytearray | None:
        """A line with its CRLF; None if there is no whole one."""
        ...

    def __bytes__(self) -> bytes: ...


class ChunkedReader:
    """Reads a body in chunks by the letter of RFC 9112, in place of h11's own.

    Sizes have at most 16 digits and nothing around them, lines end in CRLF and nothing else, and
    trailers are dropped. Extensions and trailers together have the bounds of headers.
    """

    def __init__(self, limits: LimitsSettings) -> None:
        self._limits = limits
        self._n_chunks = 0
        self._n_data_bytes = 0
        self._n_left = 0
        self._line_end = b""
        self._is_last = False
        self._n_trailers = 0
        self._n_extra_bytes = 0

    def __call__(self, received: Received) -> h11.Data | h11.EndOfMessage | None:
        """The next event in what has come; None if there is none."""
        data = bytearray()  # of many small chunks: each event costs more time than its bytes
        while len(data) < JOINED_BYTES and (more := self._next_data(received)):
            data += more
        if data:
            return h11.Data(data=bytes(data))
        return self._read_trailers(received) if self._is_last else None

    def _next_data(self, received: Received) -> bytearray | None:
        """What there is of a chunk; None if there is nothing, or the last one has begun."""
        if not self._has_ended_chunk(received):
            return None
        if not self._n_left and not self._is_last:
            self._begin_chunk(received)
        data = received.maybe_extract_at_most(self._n_left) if self._n_left else None
        if data:
            self._n_left -= len(data)
            self._n_data_bytes += len(data)
            self._line_end = b"" if self._n_left else b"\r\n"
        return data

    def _has_ended_chunk(self, received: Received) -> bool:
        """Whether the CRLF behind a chunk is read, if one is due."""
        if self._line_end:
            found = received.maybe_extract_at_most(len(self._line_end)) or b""
            if not self._line_end.startswith(found):
                raise RefusedRequest("malformed_request")
            self._line_end = self._line_end[len(found) :]
        return not self._line_end

    def _begin_chunk(self, received: Received) -> None:
        line = _line(received)
        if line is None:
            return
        found = _CHUNK.fullmatch(line)
        if found is None:
            raise RefusedRequest("malformed_request")
        self._n_left = int(found["size"], 16)
        self._is_last = not self._n_left
        self._n_chunks += not self._is_last
        self._count_extra(found["extension"] or b"")
        n_allowed = min(MAX_CHUNKS, FREE_CHUNKS + self._n_data_bytes // LEAST_CHUNK_BYTES)
        if self._n_chunks > n_allowed:
            raise RefusedRequest(
                "too_many_chunks",
                f"the body has more than {n_allowed:,} chunks in {self._n_data_bytes:,} bytes; "
                "send larger ones",
            )

    def _read_trailers(self, received: Received) -> h11.EndOfMessage | None:
        while (line := _line(received)) is not None:
            if line == b"\r\n":
                return h11.EndOfMessage()
            self._n_trailers += 1
            _require_few(self._n_trailers)
            self._count_extra(line)
            if _NO_TRAILER.match(line) or not _TRAILER.fullmatch(line):
                raise RefusedRequest("malformed_request")
        return None

    def _count_extra(self, extra: bytes) -> None:
        self._n_extra_bytes += len(extra)
        if self._n_extra_bytes > self._limits.max_header_bytes:
            raise RefusedRequest(
                "headers_too_large",
                "chunk extensions and trailers have more than "
                f"{self._limits.max_header_bytes:,} bytes",
            )


def _is_plain(value: bytes, *, is_chunked: bool) -> bool:
    """Whether it is the one coding that is read, or one number; h11 takes a list of equal ones."""
    return value.lower() == b"chunked" if is_chunked else value.isdigit()


def _line(received: Received) -> bytes | None:
    """The next whole line; one that will not be well-formed is refused before it is whole."""
    line = received.maybe_extract_next_line()
    if line is None and b"\n" in bytes(received):
        raise RefusedRequest("malformed_request")
    return None if line is None else bytes(line)


def _require_few(n_headers: int) -> None:
    if n_headers > MAX_HEADERS:
        raise RefusedRequest(
            "headers_too_large", f"{n_headers:,} headers, at most {MAX_HEADERS:,} allowed"
        )


def _too_large(limits: LimitsSettings) -> RefusedRequest:
    return RefusedRequest(
        "headers_too_large",
        f"first line and headers have more than {limits.max_header_bytes:,} bytes, or the first "
        f"line more than {LONGEST_FIRST_LINE_BYTES:,}",
    )
