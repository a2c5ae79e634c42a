"""Rows 54 to 59: callers who stop sending, leave unseen, do not stop, or write HTTP oddly."""

import gzip
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.faults.raw import (
    ASKED,
    RawAnswer,
    connected,
    everything,
    exchange,
    head,
    next_answer,
    parsed,
    whole,
)
from tests.integration.serving import Gate, Served, serving_fake, until

MIB = 2**20
WITHIN = 2.0
"""Seconds that a hostile header may take on a busy machine; it took seven."""
FRAMED = head(f"Content-Length: {len(ASKED)}") + ASKED


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    with serving_fake() as server:
        yield server


LONG = 31_000
HOSTILE_HEADERS = {
    "type of semicolons": ("Content-Type: application/json" + ";" * LONG, 415),
    "type with an open quote": ('Content-Type: application/json; a="' + ";" * LONG, 415),
    "type with escapes": ('Content-Type: application/json; a="' + '\\"' * (LONG // 2), 415),
    "type of parameters": ("Content-Type: application/json" + ";a=b" * (LONG // 4), 415),
    "charset in parts": ("Content-Type: application/json; charset*0=utf-8", 415),
    "charset with a number": ("Content-Type: application/json; charset*" + "9" * 5_000 + "=x", 415),
    "charset zlib": ("Content-Type: application/json; charset*=zlib''utf-8", 415),
    "charset NUL": ("Content-Type: application/json; charset*=%00''utf-8", 415),
    "charset utf-7": ("Content-Type: application/json; charset=utf-7", 415),
    "two types": ("Content-Type: application/json\r\nContent-Type: text/plain", 415),
    "encoding of commas": ("Content-Encoding: " + "gzip," * (LONG // 5), 415),
    "host of dots": ("Host: " + "a." * (LONG // 2) + "b", 400),
    "host of brackets": ("Host: [" + ":" * LONG + "]", 400),
    "blanks and a NUL": ("X-One:" + " " * LONG + "\0", 400),
    "blanks and a tab": ("X-One:" + " \t" * (LONG // 2) + "\x0b", 400),
    "blanks": ("X-One:" + " " * LONG + "1", 200),
    "cache control": ("Cache-Control: " + "a," * (LONG // 2), 200),
    "timeout": ("X-Request-Timeout-Ms: " + "9" * LONG, 422),
    "request id": ("X-Request-Id: " + "a" * LONG, 200),
    "authorization": ("Authorization: " + "Bearer " * (LONG // 7), 200),
    "trace": ("traceparent: " + "00-" * (LONG // 3), 200),
    "origin": ("Origin: " + "http://" * (LONG // 7), 403),
    "accepted encodings": ("Accept-Encoding: " + "gzip;q=0," * (LONG // 9), 200),
}


@pytest.mark.parametrize(("line", "status"), HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS.keys())
def test_row_54_a_header_of_32_kib_holds_nobody_up(plain: Served, line: str, status: int) -> None:
    data = whole(ASKED, line)
    if line.startswith("Host"):
        data = data.replace(b"Host: localhost\r\n", b"")
    started = time.monotonic()
    assert exchange(plain, data).status == status
    assert time.monotonic() - started < WITHIN


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/" + "%41" * 2_000, 404),
        ("/a" * 3_000, 404),
        ("/" + "%" * LONG, 431),
        ("/?" + "a=b&" * 1_900, 307),
    ],
    ids=["escapes", "slashes", "too long", "a query"],
)
def test_row_54_a_long_path_holds_nobody_up(plain: Served, path: str, status: int) -> None:
    started = time.monotonic()
    answer = exchange(plain, head("Connection: close", start=f"GET {path} HTTP/1.1"))
    assert answer.status == status
    assert time.monotonic() - started < WITHIN


@contextmanager
def waiting_caller(server: Served, gate: Gate) -> Iterator[socket.socket]:
    """A caller whose request is in the model, which is held."""
    with connected(server) as caller:
        caller.sendall(FRAMED)
        assert gate.reached.wait(60)
        yield caller


def is_noticed(server: Served) -> None:
    until(lambda: server.metric("tamis_cancelled_requests_total") == 1)


def send_without_end(caller: socket.socket) -> None:
    """Send until nothing more is taken."""
    caller.settimeout(0.3)
    with suppress(TimeoutError):
        while True:
            caller.sendall(b"x" * MIB)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("extra", [b"G", FRAMED, b"x" * 200_000, None])
def test_row_55_a_caller_who_leaves_behind_unread_bytes_is_noticed(
    extra: bytes | None, reset: bool
) -> None:
    gate = Gate()
    with serving_fake(gate) as server:
        try:
            with waiting_caller(server, gate) as caller:
                if extra is None:
                    send_without_end(caller)
                else:
                    caller.sendall(extra)
                    time.sleep(0.1)  # so that they are read before the end is
                if reset:
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            is_noticed(server)
            assert server.metric("tamis_queue_tokens") == 0
        finally:
            gate.opened.set()
        assert server.rerank("q", ["next"]).status_code == 200


def test_row_55_a_caller_who_sends_its_next_request_early_gets_both_answers() -> None:
    gate = Gate()
    with serving_fake(gate) as server, waiting_caller(server, gate) as caller:
        caller.sendall(FRAMED)
        caller.sendall(head("Connection: close", start="GET /livez HTTP/1.1"))
        assert caller.recv(1) == b"H"  # it is found out that the caller is there
        gate.opened.set()
        answers = b"H" + everything(caller)
    assert parsed(answers).status == 200
    assert answers.count(b"HTTP/1.1 200") == 3


def test_row_56_a_packed_body_is_judged_as_a_whole_however_it_comes(plain: Served) -> None:
    """Its beginning packs better than a body may, and all of it does not."""
    filler = "y" * 400_000 + os.urandom(60_000).hex()
    sent = gzip.compress(json.dumps({"query": "q", "documents": ["a"], "x": filler}).encode())
    for body, status in ((sent, 200), (gzip.compress(ASKED[:-1] + b" " * 4_000_000 + b"}"), 413)):
        by_length = whole(body, "Content-Encoding: gzip")
        for cut in (0, len(by_length) - len(body) + 1_500):
            assert in_two(plain, by_length, cut).status == status
        pieces = [body[:1_500], body[1_500:]]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        start = head("Transfer-Encoding: chunked", "Content-Encoding: gzip", "Connection: close")
        for cut in (0, len(start) + 1_510):
            assert in_two(plain, start + chunks, cut).status == status


def in_two(server: Served, data: bytes, cut: int) -> RawAnswer:
    """The answer to bytes that come in two pieces."""
    with connected(server) as caller:
        caller.sendall(data[:cut])
        time.sleep(0.05 * bool(cut))
        caller.sendall(data[cut:])
        return parsed(everything(caller))


REFUSED: dict[str, tuple[list[str], str, int]] = {
    "no such path": ([], "POST /nowhere HTTP/1.1", 404),
    "no such method": ([], "PUT /rerank HTTP/1.1", 405),
    "type": (["Content-Type: text/plain"], "POST /rerank HTTP/1.1", 415),
    "encoding": (["Content-Encoding: br"], "POST /rerank HTTP/1.1", 415),
    "origin": (["Origin: https://example.com"], "POST /rerank HTTP/1.1", 403),
    "size": ([], "POST /rerank HTTP/1.1", 413),
    "many headers": (["X: 1"] * 70, "POST /rerank HTTP/1.1", 431),
    "odd header": (["X : 1"], "POST /rerank HTTP/1.1", 400),
}


@pytest.mark.parametrize("closing", ["Connection: close", "Connection: Close, x", "X-Stays: 1"])
@pytest.mark.parametrize(("lines", "start", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_row_57_a_refusal_reaches_a_caller_who_still_sends(
    lines: list[str], start: str, status: int, closing: str
) -> None:
    body = b" " * 5 * MIB
    with serving_fake(limits={"max_body_bytes": MIB}) as server:
        for _ in range(3):
            with connected(server) as caller:
                asked = head(f"Content-Length: {len(body)}", closing, *lines, start=start)
                caller.sendall(asked + body)  # fails where the connection is reset
                assert next_answer(caller).status == status


def test_row_57_chunks_without_end_are_read_over_for_a_while_only() -> None:
    with serving_fake(limits={"body_seconds": 1}) as server, connected(server) as caller:
        caller.sendall(head("Transfer-Encoding: chunked", start="POST /nowhere HTTP/1.1"))
        assert next_answer(caller).status == 404
        with pytest.raises(ConnectionError):
            send_chunks(caller)


def send_chunks(caller: socket.socket) -> None:
    """Send them until the connection is gone, or it is time to give up."""
    started = time.monotonic()
    while time.monotonic() - started < 30:
        caller.sendall(b"10000\r\n%s\r\n" % (b" " * 65_536))


@pytest.mark.parametrize("sent", [100, 2_000])
def test_row_57_a_caller_who_never_ends_is_closed_by_time_or_by_bytes(sent: int) -> None:
    with serving_fake(limits={"body_seconds": 2}) as server, connected(server) as caller:
        caller.sendall(head("Content-Length: 9999999999", "Connection: close") + b" ")
        assert parsed(everything(caller)).status == 413
        with suppress(ConnectionError):
            for _ in range(sent):
                caller.sendall(b" " * 65_536)
        until(lambda: len(server.server.server_state.connections) <= 1)  # the client's own


@pytest.mark.parametrize(
    ("data", "n_answers"),
    [
        (FRAMED, 1),
        (whole(ASKED), 1),
        (FRAMED + FRAMED + head(start="GET /livez HTTP/1.1"), 3),
        (b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n", 1),
        (head("Content-Length: 5") + b"{", 0),
        (b"GET /livez HT", 0),
        (b"", 0),
    ],
    ids=[
        "kept alive",
        "closed",
        "three in one go",
        "HTTP/1.0",
        "half a body",
        "half a head",
        "none",
    ],
)
@pytest.mark.parametrize("held", [False, True])
def test_row_58_a_caller_who_sends_no_more_gets_its_answers(
    data: bytes, n_answers: int, held: bool
) -> None:
    gate = Gate()
    if not held:
        gate.opened.set()
    with serving_fake(gate) as server, connected(server) as caller:
        caller.sendall(data)
        caller.shutdown(socket.SHUT_WR)
        if held and b"rerank" in data and n_answers:
            assert gate.reached.wait(60)
            time.sleep(0.3)  # some of the answer's first bytes are there before it is
            gate.opened.set()
        answers = everything(caller)
        assert answers.count(b"HTTP/1.1 200 OK\r\n") == n_answers
        assert answers.startswith(b"HTTP/1.1 200 OK\r\n") or not n_answers
        until(lambda: len(server.server.server_state.connections) <= 1)
        assert server.metric("tamis_cancelled_requests_total") == 0 or not n_answers


def test_row_58_a_caller_who_sends_no_more_and_then_leaves_is_noticed() -> None:
    gate = Gate()
    with serving_fake(gate) as server:
        try:
            with waiting_caller(server, gate) as caller:
                caller.shutdown(socket.SHUT_WR)
                assert caller.recv(1) == b"H"
            is_noticed(server)
        finally:
            gate.opened.set()


CHUNKS = head("Transfer-Encoding: chunked", "Connection: close")
FRAMINGS: dict[str, bytes] = {
    "a list of equal lengths": head("Content-Length: 31, 31") + ASKED,
    "a length and a comma": head(f"Content-Length: {len(ASKED)},") + ASKED,
    "a length with a sign": head(f"Content-Length: +{len(ASKED)}") + ASKED,
    "a return in an extension": CHUNKS + b"1;a\rb\r\n{\r\n",
    "a line feed in an extension": CHUNKS + b"1;a\nb\r\n{\r\n",
    "a NUL in an extension": CHUNKS + b"1;a\0\r\n{\r\n",
    "a size with a blank": CHUNKS + b"1 \r\n{\r\n",
    "a size in C": CHUNKS + b"0x1\r\n{\r\n",
    "a size with a sign": CHUNKS + b"+1\r\n{\r\n",
    "a size of 17 digits": CHUNKS + b"00000000000000001\r\n{\r\n",
    "a size and a line feed": CHUNKS + b"1\n{\n0\n\n",
    "trailers with line feeds": CHUNKS + b"0\r\nx: y\n\n",
    "an end with a line feed": CHUNKS + b"0\r\nx: y\r\n\n",
    "a folded trailer": CHUNKS + b"0\r\nx: y\r\n z\r\n\r\n",
    "a length as a trailer": CHUNKS + b"0\r\nContent-Length: 5\r\n\r\n",
    "a control character": head("X-One: \x01"),
}


@pytest.mark.parametrize("data", FRAMINGS.values(), ids=FRAMINGS.keys())
def test_row_59_lenient_framing_is_400(plain: Served, data: bytes) -> None:
    answer: Any = exchange(plain, data)
    assert (answer.status, answer.json()["code"]) == (400, "malformed_request")


def test_row_59_what_the_standard_allows_is_read(plain: Served) -> None:
    packed = zlib.compress(ASKED, wbits=31)
    for body, lines in ((ASKED, []), (packed, ["Content-Encoding: gzip"])):
        half = len(body) // 2
        chunks = b"%X ; a=b\r\n%s\r\n%04x\r\n%s\r\n" % (
            half,
            body[:half],
            len(body) - half,
            body[half:],
        )
        start = head("Transfer-Encoding: Chunked", "Connection: close", *lines)
        assert exchange(plain, start + chunks + b"0;z\r\nx-sum: 1\r\n\r\n").status == 200
