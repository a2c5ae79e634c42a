"""HTTP/1.1 as bytes: what a connection may send, and how long it may take over it.

An application sees a request only once its headers are read; everything before that, and a
connection on which nothing moves, is this module's. Reading a body in time is `server/body.py`'s.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast
from uuid import uuid4

import h11
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from tamis.settings import LimitsSettings
from tamis.wire.native import NativeError

logger = logging.getLogger(__name__)

RefusalReason = Literal["malformed_request", "headers_too_large", "too_many_chunks", "slow_headers"]
Waiting = Literal["headers", "rest of a body"]

LEAST_BYTES_A_SECOND = 1024
"""Of an answer, that a caller has to take."""

_FOLDED_OR_BARE = re.compile(rb"\n[ \t]|(?<!\r)\n")
"""A header that goes on in the next line, or a line without a carriage return."""

_STATUSES: dict[RefusalReason, tuple[int, bytes]] = {
    "malformed_request": (400, b"Bad Request"),
    "slow_headers": (408, b"Request Timeout"),
    "too_many_chunks": (413, b"Content Too Large"),
    "headers_too_large": (431, b"Request Header Fields Too Large"),
}
_MALFORMED = "this is not one plain HTTP/1.1 request"


class RefusedRequest(h11.RemoteProtocolError):
    """Bytes that are not read on; its text has none of them."""

    def __init__(self, reason: RefusalReason, sentence: str) -> None:
        super().__init__(sentence, error_status_hint=_STATUSES[reason][0])
        self.reason: RefusalReason = reason


class BoundedConnection(h11.Connection):
    """h11's parser, with the bounds and the strictness that it leaves to others.

    Attributes:
        refusal: Why it reads no further; None while it does.
    """

    def __init__(self, limits: LimitsSettings) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.max_header_bytes)
        self._limits = limits
        self._n_chunks = 0
        self.refusal: RefusedRequest | None = None

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """See h11.

        Raises:
            RemoteProtocolError: there is a `refusal`.
        """
        before = self.trailing_data[0] if self.their_state is h11.IDLE else b""
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._n_chunks = 0
                self._check_head(before[: len(before) - len(self.trailing_data[0])], event)
            elif isinstance(event, h11.Data):
                self._count_chunk(event)
            elif isinstance(event, h11.EndOfMessage):
                self._require_few(len(event.headers))
        except RefusedRequest as refusal:
            self.refusal = refusal
            raise
        except h11.RemoteProtocolError as error:
            self.refusal = self._foreign(error)
            raise
        return event

    def _check_head(self, head: bytes, request: h11.Request) -> None:
        """Refuse what is too much, and every shape that two servers could read in two ways."""
        self._require_few(len(request.headers))
        if len(head) > self._limits.max_header_bytes:
            raise self._too_large()
        names = [line.partition(b":")[0].strip().lower() for line in head.split(b"\n")[1:]]
        lengths = names.count(b"content-length")  # h11 makes one of several that are equal
        encoded = b"transfer-encoding" in names
        is_odd = _FOLDED_OR_BARE.search(head) or request.http_version not in (b"1.0", b"1.1")
        if is_odd or lengths + encoded > 1 or (encoded and request.http_version == b"1.0"):
            raise RefusedRequest("malformed_request", _MALFORMED)

    def _require_few(self, n_headers: int) -> None:
        if n_headers > self._limits.max_headers:
            raise RefusedRequest(
                "headers_too_large",
                f"{n_headers:,} headers, at most {self._limits.max_headers:,} allowed",
            )

    def _count_chunk(self, data: h11.Data) -> None:
        self._n_chunks += data.chunk_start
        if self._n_chunks > self._limits.max_chunks:
            raise RefusedRequest(
                "too_many_chunks",
                f"the body has more than {self._limits.max_chunks:,} chunks; send larger ones",
            )

    def _foreign(self, error: h11.RemoteProtocolError) -> RefusedRequest:
        """An error of h11's own: its text may hold the caller's."""
        if error.error_status_hint == _STATUSES["headers_too_large"][0]:
            return self._too_large()
        return RefusedRequest("malformed_request", _MALFORMED)

    def _too_large(self) -> RefusedRequest:
        return RefusedRequest(
            "headers_too_large",
            f"first line and headers have more than {self._limits.max_header_bytes:,} bytes",
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for all connections of a server.

    Attributes:
        limits: How much and how long.
        on_refusal: Told the reason of each refusal.
    """

    limits: LimitsSettings
    on_refusal: Callable[[RefusalReason], None]


class EdgeProtocol(H11Protocol):
    """uvicorn's protocol on a `BoundedConnection`, with an end to every wait."""

    policy: ClassVar[Policy]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        dropping = {"drop_connection": self._drop}
        super().__init__(config, server_state, app_state | dropping, _loop)
        self._bounded = BoundedConnection(self.policy.limits)
        self.conn = self._bounded
        self.timeout_keep_alive = self.policy.limits.idle_seconds
        self._waiting: Waiting | None = None
        self._wait_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """A caller: its headers are waited for."""
        super().connection_made(transport)
        self._watch(self._wanted())

    def data_received(self, data: bytes) -> None:
        """Bytes of a caller's."""
        super().data_received(data)
        self._watch(self._wanted())

    def on_response_complete(self) -> None:
        """An answer is written; what is left of its request's body is read, but not for ever."""
        super().on_response_complete()
        partial_head = self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]
        resting = self.conn.their_state is h11.IDLE and not partial_head
        self._watch(None if resting else self._wanted())  # at rest uvicorn counts the seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._watch(None)
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The caller takes its answer slower than it is written."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """The caller has taken most of it."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """The connection was idle for long enough."""
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # an answer that nobody has taken in all this time

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser has refused; the parser knows more than `msg`."""
        self._refuse(self._bounded.refusal or RefusedRequest("malformed_request", _MALFORMED))

    def _drop(self) -> None:
        """End the connection at once; for the application, which has no transport."""
        self.transport.abort()

    def _wanted(self) -> Waiting | None:
        """What the caller owes: headers, or, after its answer, the rest of its body."""
        if self.transport.is_closing():
            return None
        if self.conn.their_state is h11.IDLE:
            return "headers"
        answered = self.conn.our_state is h11.DONE
        return "rest of a body" if answered and self.conn.their_state is h11.SEND_BODY else None

    def _watch(self, waiting: Waiting | None) -> None:
        """Start the clock when a wait begins; it goes on while the wait is the same."""
        if waiting == self._waiting:
            return
        self._waiting = waiting
        if self._wait_timer is not None:
            self._wait_timer.cancel()
            self._wait_timer = None
        if waiting is not None:
            of_headers = waiting == "headers"
            seconds = (
                self.policy.limits.header_seconds if of_headers else self.policy.limits.body_seconds
            )
            self._wait_timer = self.loop.call_later(seconds, self._waited_enough)

    def _waited_enough(self) -> None:
        if self._waiting == "headers" and self.conn.trailing_data[0]:
            sentence = f"the headers were not there in {self.policy.limits.header_seconds:g} s"
            self._refuse(RefusedRequest("slow_headers", sentence))
        else:
            self.transport.close()

    def _watch_writing(self, n_before: int | None = None) -> None:
        """Give up a caller who does not take its answer.

        Args:
            n_before: Bytes that were not taken a while ago; None at the start.
        """
        n_left = self.transport.get_write_buffer_size()
        n_least = LEAST_BYTES_A_SECOND * self.policy.limits.answer_seconds
        if n_before is not None and n_before - n_left < n_least:
            self.transport.abort()
            return
        self._write_timer = self.loop.call_later(
            self.policy.limits.answer_seconds, self._watch_writing, n_left
        )

    def _refuse(self, refusal: RefusedRequest) -> None:
        """Answer without the application, and close."""
        self.policy.on_refusal(refusal.reason)
        request_id = uuid4().hex
        logger.info("connection refused: %s, request_id %s", refusal.reason, request_id)
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # for the application the caller has left
            cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no answer has begun
            self.transport.write(_raw_answer(refusal, request_id))
        self.transport.close()


def protocol_class(
    limits: LimitsSettings, on_refusal: Callable[[RefusalReason], None]
) -> type[EdgeProtocol]:
    """The protocol of one server, for uvicorn's `http`."""

    class ServersProtocol(EdgeProtocol):
        policy = Policy(limits, on_refusal)

    return ServersProtocol


def _raw_answer(refusal: RefusedRequest, request_id: str) -> bytes:
    status, phrase = _STATUSES[refusal.reason]
    body = msgspec.json.encode(NativeError(str(refusal), refusal.reason, request_id))
    head = (
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    return b"HTTP/1.1 %d %s\r\n%s%s" % (status, phrase, head.encode(), body)
