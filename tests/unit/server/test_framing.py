import time

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.server.framing import BoundedConnection, RefusedRequest
from tamis.settings import LimitsSettings

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WITHIN = 0.5
"""Seconds, where a pattern that backtracks takes several."""


def read(data: bytes, step: int | None = None, **limits: int) -> list[h11.Event]:
    """All events in bytes that come in pieces of one size."""
    connection = BoundedConnection(LimitsSettings.model_validate(limits))
    events: list[h11.Event] = []
    size = step or len(data)
    for at in range(0, len(data), size):
        connection.receive_data(data[at : at + size])
        while isinstance(event := connection.next_event(), h11.Event):
            events.append(event)
    return events


def body_of(events: list[h11.Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, h11.Data))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 60))
def test_chunks_are_put_together_however_they_are_cut(chunks: list[bytes], step: int) -> None:
    data = b"".join(b"%x;a=b\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    events = read(CHUNKED + data + b"0\r\nx: y\r\n\r\n", step)
    assert body_of(events) == b"".join(chunks)
    assert isinstance(events[-1], h11.EndOfMessage)


@pytest.mark.parametrize(
    "line",
    [
        *(b"5", b"05", b"5;a", b"5 ; a=b", b'5;a="b c"', b"0000000000000005"),
    ],
)
def test_a_chunk_of_five(line: bytes) -> None:
    events = read(CHUNKED + line + b"\r\nhello\r\n0\r\n\r\n")
    assert body_of(events) == b"hello"


@pytest.mark.parametrize(
    "rest",
    [
        *(b"+5\r\nhello", b"-5\r\nhello", b" 5\r\nhello", b"5 \r\nhello", b"5\t\r\nhello"),
        *(b"0x5\r\nhello", b"5_0\r\nhello", b"5,5\r\nhello", b"00000000000000005\r\nhello"),
        *(b"\r\nhello", b";a\r\nhello", b"5\nhello\n0\n\n", b"5;a\rb\r\nhello", b"5;a\nb\r\nhello"),
        *(b"5\r\r\nhello", b"5;a\0\r\nhello", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n"),
        *(
            b"5\r\nhello\r0\r\n\r\n",
            b"0\r\nx: y\n\n",
            b"0\r\nx: y\r\n\n",
            b"0\r\nx: y\nz: a\r\n\r\n",
        ),
        *(
            b"0\r\nx : y\r\n\r\n",
            b"0\r\n x: y\r\n\r\n",
            b"0\r\nx: y\r\n z\r\n\r\n",
            b"0\r\nx\r\n\r\n",
        ),
        *(
            b"0\r\nx: \0\r\n\r\n",
            b"0\r\nx: a\rb\r\n\r\n",
            b"0\r\n: y\r\n\r\n",
            b"0\n\n",
            b"0\r\n\n",
        ),
        *(b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\ntransfer-encoding: chunked\r\n\r\n"),
        *(b"5 ;" + b" " * 30_000 + b"\n\r\n", b"0\r\nx:" + b" " * 30_000 + b"\0\r\n\r\n"),
    ],
)
def test_a_chunk_or_trailer_that_could_be_read_otherwise_is_refused(rest: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(RefusedRequest) as refused:
        read(CHUNKED + rest)
    assert refused.value.reason == "malformed_request"
    assert time.monotonic() - started < WITHIN


@pytest.mark.parametrize(
    "lines",
    [
        *(
            b"Content-Length: 5, 5",
            b"Content-Length: 5,",
            b"Content-Length: ,5",
            b"Content-Length:",
        ),
        *(
            b"Content-Length: +5",
            b"Content-Length: 5;",
            b"Content-Length: 5 5",
            b"Content-Length: -0",
        ),
        *(b"Content-Length: 0x5", b"Content-Length: 5\x0b", b"Content-Length : 5"),
        *(
            b"content-length: 5\r\nContent-Length: 5",
            b"Content-Length\t: 5",
            b"Content-Length: 5\r",
        ),
        *(b"Transfer-Encoding: chunked,", b"Transfer-Encoding: , chunked", b"Transfer-Encoding:"),
        *(b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked;q=1"),
        *(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked\x0c"),
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: chunked\r\ncontent-length: 5",
        *(b"x: \x01", b"x: \x7f", b"x: \0", b": x", b"x", b"x: a\r\n b", b"x: a\n", b"x: a\rb"),
        *(b"x:" + b" " * 31_000 + b"\0", b"x:" + b"\t " * 15_000 + b"\x0b", b"x" * 31_000),
        *(b"x: " + b"a " * 15_000 + b"\0", b"x:" + b" " * 31_000 + b"\r"),
    ],
)
def test_a_head_that_could_be_read_otherwise_is_refused_at_once(lines: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(RefusedRequest) as refused:
        read(HEAD + lines + b"\r\n\r\nhello")
    assert refused.value.reason == "malformed_request"
    assert time.monotonic() - started < WITHIN


@pytest.mark.parametrize("length", [b"5", b"\t5\t", b"  5  ", b"0005"])
def test_a_plain_length_is_read(length: bytes) -> None:
    assert body_of(read(HEAD + b"Content-Length:" + length + b"\r\n\r\nhello")) == b"hello"


def test_a_name_that_only_looks_like_framing_is_a_header() -> None:
    assert (
        body_of(read(HEAD + b"X-Content-Length: 9\r\nContent-Length: 5\r\n\r\nhello")) == b"hello"
    )


@pytest.mark.parametrize("n_bytes", [7_000, 9_000])
def test_a_first_line_has_a_bound_of_its_own(n_bytes: int) -> None:
    data = b"GET /" + b"%" * n_bytes + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    if n_bytes < 8_000:
        assert isinstance(read(data)[0], h11.Request)
        return
    with pytest.raises(RefusedRequest) as refused:
        read(data)
    assert refused.value.reason == "headers_too_large"


def test_extensions_and_trailers_together_have_the_bounds_of_headers() -> None:
    chunk = b"1;" + b"a" * 600 + b"\r\nx\r\n"
    trailer = b"x: " + b"y" * 600 + b"\r\n"
    limits = {"max_header_bytes": 1024}
    read(CHUNKED + chunk + b"0\r\n\r\n", 64, **limits)
    for more in (chunk + chunk, chunk + b"0\r\n" + trailer, b"0\r\n" + trailer + trailer):
        with pytest.raises(RefusedRequest) as refused:
            read(CHUNKED + more, 64, **limits)
        assert refused.value.reason == "headers_too_large"


def test_what_was_sent_early_is_left_out_of_the_answer() -> None:
    connection = BoundedConnection(LimitsSettings())
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert isinstance(connection.next_event(), h11.Request)
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    connection.n_sent_early = 4
    sent = connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    assert sent.startswith(b"/1.1 200")
    assert connection.n_sent_early == 0


def test_many_small_chunks_are_one_event() -> None:
    events = read(CHUNKED + b"1\r\nx\r\n" * 200 + b"0\r\n\r\n")
    assert [type(event) for event in events] == [h11.Request, h11.Data, h11.EndOfMessage]
    assert body_of(events) == b"x" * 200


@pytest.mark.parametrize("n_bytes", [1, 64])
def test_chunks_have_64_bytes_on_average_beyond_the_first_256(n_bytes: int) -> None:
    chunks = b"%x\r\n%s\r\n" % (n_bytes, b"x" * n_bytes) * 1_000
    if n_bytes == 64:
        assert len(body_of(read(CHUNKED + chunks))) == 64_000
        return
    with pytest.raises(RefusedRequest) as refused:
        read(CHUNKED + chunks)
    assert refused.value.reason == "too_many_chunks"
