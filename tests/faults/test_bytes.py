"""Too much, packed too well, or of a shape that two servers would read in two ways."""

import gzip
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.errors import BodyTooLargeError, MalformedBodyError
from tamis.server import body as bodies
from tamis.server.body import ENCODINGS, Unpacking, zstd
from tamis.server.framing import FREE_CHUNKS, LEAST_CHUNK_BYTES, MAX_CHUNKS
from tests.faults.raw import ASKED, connected, exchange, head, next_answer, whole
from tests.integration.serving import Gate, Served, serving_fake, until

MIB = 2**20


@pytest.fixture(scope="module")
def bounded() -> Iterator[Served]:
    """A server with the limits of the contract."""
    with serving_fake() as server:
        yield server


def resident_bytes() -> int:
    """Memory of this process, in which the server runs."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kept", [True, False], ids=["kept alive", "closed"])
@pytest.mark.parametrize("framing", ["Content-Length: 33554432", "Transfer-Encoding: chunked"])
def test_row_17_a_body_of_32_mib_is_413_and_is_not_kept(
    bounded: Served, framing: str, kept: bool
) -> None:
    lines = [framing] if kept else [framing, "Connection: close"]
    blocks = b" " * 32 * MIB
    if "chunked" in framing:
        blocks = b"10000\r\n%s\r\n" % blocks[:65_536] * 512 + b"0\r\n\r\n"
    data = head(*lines) + blocks + head("Connection: close", start="GET /livez HTTP/1.1")
    before = resident_bytes()
    answer = exchange(bounded, data)
    assert (answer.status, answer.json()["code"]) == (413, "body_too_large")
    assert resident_bytes() - before < 20 * MIB


def test_row_17_a_body_that_will_be_too_large_is_413_before_it_comes(bounded: Served) -> None:
    with connected(bounded) as caller:
        caller.sendall(head("Content-Length: 33554432", "Expect: 100-continue"))
        assert next_answer(caller).status == 413


def test_row_17_a_length_that_promises_more_than_comes_is_408() -> None:
    with serving_fake(limits={"body_seconds": 0.2}) as server:
        answer = exchange(server, head(f"Content-Length: {len(ASKED) + 1}") + ASKED)
        assert (answer.status, answer.json()["code"]) == (408, "slow_body")


def test_row_17_a_length_that_promises_less_than_comes_is_400(bounded: Served) -> None:
    answer = exchange(bounded, head("Content-Length: 5", "Connection: close") + ASKED)
    assert (answer.status, answer.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize("length", ["-1", "+5", "5.0", "0x5", "", "five", "9" * 30])
def test_row_17_a_length_that_is_no_number_is_400(bounded: Served, length: str) -> None:
    answer = exchange(bounded, head(f"Content-Length: {length}") + ASKED)
    assert (answer.status, answer.json()["code"]) == (400, "malformed_request")


def test_row_17_seventy_thousand_chunks_of_one_byte_are_413(bounded: Served) -> None:
    data = head("Transfer-Encoding: chunked") + b"1\r\n \r\n" * 70_000
    before = resident_bytes()
    answer = exchange(bounded, data)
    assert (answer.status, answer.json()["code"]) == (413, "too_many_chunks")
    assert resident_bytes() - before < 20 * MIB
    assert bounded.rerank("q", ["a"]).status_code == 200


CHUNKED = head("Transfer-Encoding: chunked", "Connection: close")


@pytest.mark.parametrize(
    ("n_chunks", "n_bytes"), [(FREE_CHUNKS, 1), (MAX_CHUNKS, LEAST_CHUNK_BYTES)]
)
def test_chunks_at_the_limit_are_read(bounded: Served, n_chunks: int, n_bytes: int) -> None:
    """And five more are not: the free ones have as many bytes as earn four."""
    body = ASKED.ljust(n_chunks * n_bytes)
    pieces = [body[at : at + n_bytes] for at in range(0, len(body), n_bytes)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (n_bytes, piece) for piece in pieces)
    assert exchange(bounded, CHUNKED + chunks + b"0\r\n\r\n").status == 200
    again = CHUNKED + b"1\r\n \r\n" * 5 + chunks + b"0\r\n\r\n"
    assert exchange(bounded, again).json()["code"] == "too_many_chunks"


def test_row_17_tiny_chunks_are_refused_after_a_few_hundred(bounded: Served) -> None:
    answer = exchange(bounded, CHUNKED + b"1\r\n \r\n" * 300)
    assert (answer.status, answer.json()["code"]) == (413, "too_many_chunks")


def bytes_held(server: Served) -> int:
    """Of all bodies that are in the server."""
    app: Any = server.server.config.app
    return int(app.state.context.bodies.n_held)


def test_row_17_all_bodies_together_have_one_bound() -> None:
    """Those that come and those whose answer is waited for; packed ones by what they unpack to."""
    gate = Gate()
    half = json.dumps({"query": "q", "documents": [{"text": "a", "more": "x" * 600_000}]}).encode()
    sent = gzip.compress(half, 0)
    limits = {"max_total_body_bytes": MIB}
    with serving_fake(gate, limits=limits) as server, ThreadPoolExecutor(1) as pool:
        with connected(server) as slow:
            slow.sendall(head(f"Content-Length: {len(half)}") + half[:-1])
            until(lambda: bytes_held(server) > 599_000)
            for data in (whole(half), whole(sent, "Content-Encoding: gzip")):
                refused = exchange(server, data)
                assert (refused.status, refused.json()["code"]) == (429, "queue_full")
                assert int(refused.headers["retry-after"]) >= 1
            assert server.client.get("/v1/limits").json()["max_total_body_bytes"] == MIB
        until(lambda: bytes_held(server) == 0)  # it has left
        waiting = pool.submit(exchange, server, whole(half))
        assert gate.reached.wait(60)
        assert exchange(server, whole(half)).status == 429
        gate.opened.set()
        assert waiting.result().status == 200
        assert bytes_held(server) == 0
        assert exchange(server, whole(half)).status == 200


@pytest.mark.parametrize(("n_headers", "status"), [(64, 200), (65, 431), (3_000, 431)])
def test_headers_over_the_limit_are_431(bounded: Served, n_headers: int, status: int) -> None:
    lines = [f"x-{number}: 1" for number in range(n_headers - 2)]  # and Host, and Connection
    answer = exchange(bounded, head("Connection: close", *lines, start="GET /livez HTTP/1.1"))
    assert answer.status == status
    assert status == 200 or answer.json()["code"] == "headers_too_large"


@pytest.mark.parametrize("n_bytes", [33_000, 70_000, 1_000_000])
@pytest.mark.parametrize("ended", [True, False])
def test_headers_of_too_many_bytes_are_431(bounded: Served, n_bytes: int, ended: bool) -> None:
    data = head("x: " + "y" * n_bytes, start="GET /livez HTTP/1.1")
    answer = exchange(bounded, data if ended else data[:-4])
    assert (answer.status, answer.json()["code"]) == (431, "headers_too_large")


def test_trailers_over_the_limit_are_431(bounded: Served) -> None:
    trailers = b"".join(b"x-%d: 1\r\n" % number for number in range(65))
    asked = head("Transfer-Encoding: chunked") + b"0\r\n" + trailers + b"\r\n"
    assert exchange(bounded, asked).status == 431


def packed(data: bytes, encoding: str) -> bytes:
    return gzip.compress(data) if encoding == "gzip" else zstd.compress(data)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_packed_body_is_read(bounded: Served, encoding: str) -> None:
    many = json.dumps({"query": "q", "documents": [f"text {n * n}" for n in range(900)]}).encode()
    for body, n_results in ((ASKED, 2), (many, 900)):
        asked = whole(packed(body, encoding), f"Content-Encoding: {encoding}")
        answer = exchange(bounded, asked)
        assert answer.status == 200
        assert len(answer.json()["results"]) == n_results


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_row_18_a_bomb_is_413_and_is_never_unpacked(bounded: Served, encoding: str) -> None:
    bomb = packed(bytes(256 * MIB), encoding)
    assert len(bomb) < MIB
    before = resident_bytes()
    answer = exchange(bounded, whole(bomb, f"Content-Encoding: {encoding}"))
    assert (answer.status, answer.json()["code"]) == (413, "body_too_large")
    assert resident_bytes() - before < 20 * MIB


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize(
    "spoiled",
    [
        lambda data: data[:-9],
        lambda data: data[:20] + bytes(8) + data[28:],
        lambda data: data + b"more",
        lambda data: data + data,
        lambda _: ASKED,
        lambda _: b"\x1f\x8b",
    ],
    ids=["cut short", "changed", "more behind it", "twice", "not packed", "two bytes"],
)
def test_row_18_a_bad_stream_is_400(bounded: Served, encoding: str, spoiled: object) -> None:
    assert callable(spoiled)
    body = spoiled(packed(ASKED * 3, encoding))
    answer = exchange(bounded, whole(body, f"Content-Encoding: {encoding}"))
    assert (answer.status, answer.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize(
    "encoding", ["br", "deflate", "gzip, gzip", "gzip\r\nContent-Encoding: br"]
)
def test_row_18_an_unknown_encoding_is_415(bounded: Served, encoding: str) -> None:
    answer = exchange(bounded, whole(ASKED, f"Content-Encoding: {encoding}"))
    assert (answer.status, answer.json()["code"]) == (415, "unsupported_media_type")


GZIP = ENCODINGS["gzip"]
assert GZIP is not None


def unpacked(unpacking: Unpacking, pieces: Iterable[bytes]) -> bytes:
    """A body that comes in pieces."""
    for piece in pieces:
        unpacking.feed(piece)
        list(unpacking.steps())
    unpacking.end()
    list(unpacking.steps())
    return bytes(unpacking.finish())


def test_a_zstd_window_over_8_mib_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.checksum_flag: 1}
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(os.urandom(1_000)) + compressor.flush()  # its size is not in front
    make = ENCODINGS["zstd"]
    assert make is not None
    unpacking = Unpacking(make(), MIB, max_ratio=20)
    with pytest.raises(MalformedBodyError):
        unpacked(unpacking, [data])


@given(st.binary(max_size=2_000), st.integers(1, 300), st.sampled_from(["gzip", "zstd"]))
def test_what_was_packed_comes_out_however_it_was_cut(data: bytes, size: int, how: str) -> None:
    make = ENCODINGS[how]
    assert make is not None
    unpacking = Unpacking(make(), MIB, max_ratio=20)
    sent = packed(data, how)
    assert unpacked(unpacking, [sent[at : at + size] for at in range(0, len(sent), size)]) == data


@pytest.mark.parametrize("n_bytes", [bodies.UNSUSPICIOUS_BYTES, bodies.UNSUSPICIOUS_BYTES + 1])
def test_what_grows_too_much_is_refused_however_small(n_bytes: int) -> None:
    unpacking = Unpacking(GZIP(), 8 * MIB, max_ratio=20)
    sent = gzip.compress(bytes(n_bytes))
    if n_bytes > bodies.UNSUSPICIOUS_BYTES:
        with pytest.raises(BodyTooLargeError):
            unpacked(unpacking, [sent])
    else:
        assert len(unpacked(unpacking, [sent])) == n_bytes


def test_row_18_what_grows_too_much_is_unpacked_no_further_until_more_comes() -> None:
    unpacking = Unpacking(GZIP(), 8 * MIB, max_ratio=20)
    sent = gzip.compress(bytes(4 * MIB) + os.urandom(MIB))
    unpacking.feed(sent[:5_000])
    assert list(unpacking.steps()) != []
    assert unpacking.n_bytes < 20 * 5_000 + 5_000
    assert list(unpacking.steps()) == []
    assert len(unpacked(unpacking, [sent[5_000:]])) == 5 * MIB


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("is_promised", [False, True])
def test_row_18_a_body_is_unpacked_in_steps(encoding: str, is_promised: bool) -> None:
    make = ENCODINGS[encoding]
    assert make is not None
    sent = packed(bytes(8 * MIB), encoding)
    n_promised = len(sent) if is_promised else None
    unpacking = Unpacking(make(), 8 * MIB, max_ratio=100_000, n_promised=n_promised)
    unpacking.feed(sent)
    sizes = [unpacking.n_bytes, *(unpacking.n_bytes for _ in unpacking.steps())]
    assert max(after - before for before, after in itertools.pairwise(sizes)) <= 64 * 1024
    unpacking.end()
    list(unpacking.steps())
    assert len(unpacking.finish()) == 8 * MIB


def test_row_61_the_window_of_an_unfinished_body_is_counted() -> None:
    make = ENCODINGS["zstd"]
    assert make is not None
    unpacking = Unpacking(make(), 8 * MIB, max_ratio=20, max_window_bytes=MIB)
    sent = packed(bytes(MIB) + os.urandom(MIB), "zstd")
    unpacking.feed(sent[:-1])
    list(unpacking.steps())
    assert unpacking.n_bytes > 2.9 * MIB
    unpacking.feed(sent[-1:])
    list(unpacking.steps())
    assert unpacking.n_bytes == 2 * MIB


SMUGGLING = {
    "length and chunks": head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunks and length": head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n",
    "two lengths": head("Content-Length: 5", "Content-Length: 6") + ASKED,
    "two equal lengths": head("Content-Length: 5", "Content-Length: 5") + ASKED,
    "a list of lengths": head("Content-Length: 5, 6") + ASKED,
    "two encodings": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "another encoding": head("Transfer-Encoding: gzip, chunked"),
    "an odd encoding": head("Transfer-Encoding: xchunked"),
    "a folded header": head("X-One: 1\r\n two: 2"),
    "a folded encoding": head("Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n",
    "a blank before the colon": head("Transfer-Encoding : chunked"),
    "a blank before the name": b"GET /livez HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: localhost\n\n",
    "a bare line feed": head("X-One: 1\nContent-Length: 5"),
    "a bare return": head("X-One: 1\rContent-Length: 5"),
    "a NUL": head("X-One: 1\0"),
    "chunks in HTTP/1.0": head("Transfer-Encoding: chunked", start="POST /rerank HTTP/1.0"),
    "two hosts": head("Host: localhost"),
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "another version": head(start="GET /livez HTTP/3.0"),
    "a bad chunk size": head("Transfer-Encoding: chunked") + b"5x\r\n",
    "a negative chunk": head("Transfer-Encoding: chunked") + b"-1\r\n",
    "no end of a chunk": head("Transfer-Encoding: chunked") + b"1\r\n{{",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
}


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_row_46_shapes_of_request_smuggling_are_400(bounded: Served, data: bytes) -> None:
    answer = exchange(bounded, data + b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (answer.status, answer.json()["code"]) == (400, "malformed_request")
    assert answer.json()["error"] == "this is not one plain HTTP/1.1 request"
    assert b"tamis_" not in answer.body


def test_row_46_what_was_refused_is_counted(bounded: Served) -> None:
    before = bounded.metric("tamis_refusals_total", reason="malformed_request")
    exchange(bounded, SMUGGLING["length and chunks"])
    assert bounded.metric("tamis_refusals_total", reason="malformed_request") == before + 1


def test_requests_in_one_go_are_answered_in_turn(bounded: Served) -> None:
    first = head(f"Content-Length: {len(ASKED)}") + ASKED
    answer = exchange(bounded, first + head("Connection: close", start="GET /livez HTTP/1.1"))
    assert answer.status == 200
    assert len(answer.json()["results"]) == 2


def test_a_second_request_that_is_no_request_does_not_spoil_the_first(bounded: Served) -> None:
    first = head(f"Content-Length: {len(ASKED)}") + ASKED
    answer = exchange(bounded, first + b"nonsense\r\n\r\n")
    assert answer.status == 200


def test_no_answer_repeats_the_callers_bytes(bounded: Served) -> None:
    for data in (
        b"GET /canary HTTP/9.9\r\n\r\n",
        b"canary\r\n\r\n",
        head("can ary: canary"),
        head("x: canary\0"),
        head("Transfer-Encoding: chunked") + b"canary\r\n",
    ):
        answer = exchange(bounded, data)
        assert answer.status == 400
        assert not re.search(b"canary", answer.body)
