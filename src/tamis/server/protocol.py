"""A connection: who may hold it for how long, and how it ends.

An application sees a request only once its headers are read; everything before that, and a
connection on which nothing moves, is this module's. Reading a body in time is `server/body.py`'s,
what the bytes mean `server/framing.py`'s.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast
from uuid import uuid4

import h11
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from tamis.server.framing import STATUSES, BoundedConnection, RefusalReason, RefusedRequest
from tamis.server.leaving import LeavingWatch
from tamis.server.lingering import LingeringTransport
from tamis.settings import LimitsSettings
from tamis.wire.native import NativeError

logger = logging.getLogger(__name__)

Waiting = Literal["headers", "rest of a body"]

ANSWER_SECONDS = 15.0
"""In which a caller must take `LEAST_BYTES_A_SECOND` of an answer for each, or all of it."""
LEAST_BYTES_A_SECOND = 1024
"""Of an answer, that a caller has to take."""


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
        self._sends_no_more = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """A caller: its headers are waited for."""
        self._lingering = LingeringTransport(
            transport, has_unread=self._has_unread, seconds=self.policy.limits.body_seconds
        )
        self._leaving = LeavingWatch(self._lingering, self._bounded, self._is_in_doubt)
        super().connection_made(self._lingering)
        self._watch(self._wanted())

    def data_received(self, data: bytes) -> None:
        """Bytes of a caller's."""
        if self._lingering.is_lingering or self._waiting == "rest of a body":
            self._lingering.discard(len(data))
        if self._lingering.is_closing():
            return
        super().data_received(data)
        self._watch(self._wanted())

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's never keeps it open
        """The caller sends no more: a request that is whole is answered, any other is over."""
        if self._lingering.is_closing() or not self._is_answering():
            return False
        self._sends_no_more = self._leaving.has_shut = True
        self._leaving.begin()
        return True

    def handle_events(self) -> None:
        """What the parser makes of the bytes that have come."""
        super().handle_events()
        self._leaving.begin()

    def on_response_complete(self) -> None:
        """An answer is written; what is left of its request's body is read, but not for ever."""
        super().on_response_complete()
        if self._sends_no_more and not self._is_answering():
            self.transport.close()
        partial_head = self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]
        resting = self.conn.their_state is h11.IDLE and not partial_head
        self._watch(None if resting else self._wanted())  # at rest uvicorn counts the seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._watch(None)
        self._leaving.end()
        self._lingering.lost()
        self.resume_writing()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends; an answer that is there has had its time."""
        if self._lingering.is_lingering:
            self._lingering.close_now()
        else:
            super().shutdown()

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
        self._refuse(self._bounded.refusal or RefusedRequest("malformed_request"))

    def _is_answering(self) -> bool:
        """Whether a request is read to its end, and its answer is not there yet."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        read = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)
        return cycle is not None and not cycle.response_complete and read

    def _is_in_doubt(self) -> bool:
        """Whether an answer is worked on for a caller whose leaving would not be seen."""
        unseen = self._sends_no_more or self.flow.read_paused
        waits = unseen and self.conn.our_state is h11.SEND_RESPONSE and self._is_answering()
        return waits and not self.transport.is_closing()

    def _has_unread(self) -> bool:
        """Whether closing now would leave bytes unread."""
        if self._sends_no_more:
            return False
        unread = self.conn.their_state in (h11.SEND_BODY, h11.ERROR) or self.flow.read_paused
        return unread or bool(self.conn.trailing_data[0])

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
        self._lingering.n_discarded = 0
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
            self._lingering.close_now()

    def _watch_writing(self, n_before: int | None = None) -> None:
        """Give up a caller who does not take its answer.

        Args:
            n_before: Bytes that were not taken a while ago; None at the start.
        """
        n_left = self.transport.get_write_buffer_size()
        n_least = LEAST_BYTES_A_SECOND * ANSWER_SECONDS
        if n_before is not None and n_before - n_left < n_least:
            self.transport.abort()
            return
        self._write_timer = self.loop.call_later(ANSWER_SECONDS, self._watch_writing, n_left)

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
            self.transport.write(_raw_answer(refusal, request_id)[self._bounded.n_sent_early :])
        self.transport.close()


def protocol_class(
    limits: LimitsSettings, on_refusal: Callable[[RefusalReason], None]
) -> type[EdgeProtocol]:
    """The protocol of one server, for uvicorn's `http`."""

    class ServersProtocol(EdgeProtocol):
        policy = Policy(limits, on_refusal)

    return ServersProtocol


def _raw_answer(refusal: RefusedRequest, request_id: str) -> bytes:
    status, phrase = STATUSES[refusal.reason]
    body = msgspec.json.encode(NativeError(str(refusal), refusal.reason, request_id))
    head = (
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    return b"HTTP/1.1 %d %s\r\n%s%s" % (status, phrase, head.encode(), body)
