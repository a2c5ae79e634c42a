"""Callers who are slow, or say nothing: answered or cut off in time, and the others unaffected."""

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tamis.server import protocol
from tests.faults.raw import ASKED, connected, everything, exchange, head, next_answer, parsed
from tests.integration.serving import Served, serving_fake, until

SOON = 0.2
WITHIN = 10.0
"""Seconds that `SOON` may take on a busy machine."""


@pytest.fixture(scope="module")
def impatient() -> Iterator[Served]:
    """A server that waits for nobody."""
    limits = {"header_seconds": SOON, "body_seconds": SOON}
    with pytest.MonkeyPatch.context() as patched, serving_fake(limits=limits) as server:
        patched.setattr(protocol, "ANSWER_SECONDS", SOON)
        yield server


def test_row_16_slow_headers_are_answered_408(impatient: Served) -> None:
    answer = exchange(impatient, b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    assert (answer.status, answer.json()["code"]) == (408, "slow_headers")
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_row_16_headers_that_come_byte_by_byte_get_no_more_time(impatient: Served) -> None:
    with connected(impatient) as caller:
        started = time.monotonic()
        received = threading.Event()

        def drip() -> None:
            for byte in head("X-Slow: " + "x" * 30_000):
                if received.wait(0.01):
                    return
                try:
                    caller.send(bytes([byte]))
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = parsed(everything(caller))
        received.set()
        dripping.join()
    assert answer.status == 408
    assert time.monotonic() - started < WITHIN


@pytest.mark.parametrize("first", [b"", head(start="GET /livez HTTP/1.1")])
def test_row_16_a_connection_without_a_request_is_closed_without_a_word(first: bytes) -> None:
    with serving_fake(limits={"header_seconds": SOON, "idle_seconds": 1}) as server:
        with connected(server) as caller:
            caller.sendall(first)
            answered = everything(caller)
        assert answered.count(b"HTTP/1.1") == bool(first)
        assert not first or parsed(answered).status == 200


def test_row_16_a_second_request_on_a_connection_has_its_own_time(impatient: Served) -> None:
    with connected(impatient) as caller:
        caller.sendall(head(start="GET /livez HTTP/1.1"))
        assert next_answer(caller).status == 200
        threading.Event().wait(2 * SOON)  # idle is not slow
        caller.sendall(head(start="GET /livez HTTP/1.1"))
        assert next_answer(caller).status == 200
        caller.sendall(b"GET /livez HT")
        assert parsed(everything(caller)).status == 408


@pytest.mark.parametrize("framing", ["Content-Length: 500", "Transfer-Encoding: chunked"])
def test_row_16_a_slow_body_is_answered_408(impatient: Served, framing: str) -> None:
    start = b"3\r\n{  \r\n" if "chunked" in framing else b"{"
    answer = exchange(impatient, head(framing) + start)
    assert (answer.status, answer.json()["code"]) == (408, "slow_body")
    assert answer.headers["connection"] == "close"


def test_row_16_a_body_nobody_asked_for_is_not_read_for_ever(impatient: Served) -> None:
    started = time.monotonic()
    asked = head("Content-Length: 500", start="GET /livez HTTP/1.1")
    assert exchange(impatient, asked + b"{").status == 200
    assert time.monotonic() - started < WITHIN


def test_row_16_a_caller_who_does_not_take_its_answer_is_cut_off(impatient: Served) -> None:
    body = json.dumps({"query": "q", "documents": [{"text": "a", "more": "x" * 7_000_000}]})
    lines = f"Content-Length: {len(body)}"
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.settimeout(60)
        caller.connect(("127.0.0.1", impatient.port))
        caller.sendall(head(lines) + body.encode())
        until(lambda: len(impatient.server.server_state.connections) >= 1)
        mine = ("127.0.0.1", caller.getsockname()[1])
        until(lambda: all(one.client != mine for one in impatient.server.server_state.connections))
    assert impatient.rerank("q", ["a"]).status_code == 200


@pytest.fixture
def patient() -> Iterator[Served]:
    """A server that has read what two hundred callers sent before it gives up on them."""
    with serving_fake(limits={"header_seconds": 2.0, "body_seconds": 2.0}) as server:
        yield server


def test_row_16_two_hundred_slow_callers_keep_nobody_waiting(patient: Served) -> None:
    callers = [socket.create_connection(("127.0.0.1", patient.port)) for _ in range(200)]
    try:
        for number, caller in enumerate(callers):
            caller.sendall([b"", b"POST /re", head("Content-Length: 9") + b"{"][number % 3])
            if number % 20 == 0:
                assert patient.rerank("q", ["a"]).status_code == 200
        for caller in callers:
            caller.settimeout(WITHIN)
            everything(caller)
    finally:
        for caller in callers:
            caller.close()
    until(lambda: len(patient.server.server_state.connections) <= 1)  # the client's own
    assert patient.metric("tamis_refusals_total", reason="slow_headers") >= 60


def test_a_body_in_time_is_no_slow_one(impatient: Served) -> None:
    with connected(impatient) as caller:
        caller.sendall(head(f"Content-Length: {len(ASKED)}", "Connection: close"))
        for at in range(0, len(ASKED), 16):
            caller.sendall(ASKED[at : at + 16])
        assert parsed(everything(caller)).status == 200
