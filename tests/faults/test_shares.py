"""Rows 5 and 60 to 63: what callers share, and what one of them can take of it."""

import gzip
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tamis.engine.pairs import EncodedPair
from tamis.server import body
from tamis.server.keys import make_key
from tamis.settings import Settings
from tamis.testing import WordTokenizer
from tamis.wire.parsing import count_documents, parse_object
from tests.faults.raw import connected, everything, exchange, head, next_answer, whole
from tests.faults.test_bytes import bytes_held
from tests.faults.test_memory import QUIET, DoubleServer, resident_bytes
from tests.integration.serving import (
    NO_CACHE,
    Gate,
    Served,
    fake_model,
    sample,
    serving,
    serving_fake,
    until,
)

MIB = 2**20
N_BODIES = 16


class Keys:
    """Two keys in a file, and requests that carry them."""

    def __init__(self, folder: Path) -> None:
        made = {name: make_key(name) for name in ("loud", "quiet")}
        self._keys = {name: key for name, (key, _) in made.items()}
        self.path = folder / "keys.txt"
        self.path.write_text("\n".join(line for _, line in made.values()))

    @property
    def settings(self) -> dict[str, Any]:
        """Of the server that asks for them."""
        return {"keys_file": self.path, "metrics_open": True}

    def line(self, name: str) -> str:
        """The header of one of them."""
        return f"Authorization: Bearer {self._keys[name]}"

    def rerank(
        self, server: Served, name: str, documents: Sequence[str], **fields: Any
    ) -> httpx2.Response:
        """`POST /rerank` with one of them."""
        with httpx2.Client(base_url=server.client.base_url, timeout=60) as client:
            return client.post(
                "/rerank",
                json={"query": "q", "documents": documents} | fields,
                headers=dict([self.line(name).split(": ")]),
            )


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Keys for a loud and a quiet caller."""
    return Keys(tmp_path)


def test_row_5_a_full_queue_still_has_room_for_another_key(keys: Keys) -> None:
    gate = Gate()
    room = {"max_queued_tokens": 60, "max_batch_tokens": 6}
    with (
        serving_fake(gate, scheduler=room, server=keys.settings) as server,
        ThreadPoolExecutor(16) as pool,
    ):
        loud = [pool.submit(keys.rerank, server, "loud", [f"a{n}"]) for n in range(10)]
        until(lambda: server.metric("tamis_queue_tokens") == 60)
        assert keys.rerank(server, "loud", ["more"]).json()["code"] == "queue_full"
        quiet = [pool.submit(keys.rerank, server, "quiet", [f"b{n}"]) for n in range(5)]
        until(lambda: server.metric("tamis_queue_tokens") == 90)
        for name in ("loud", "quiet"):  # a half is a half
            refused = keys.rerank(server, name, ["more"])
            assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
            assert int(refused.headers["retry-after"]) >= 1
        gate.opened.set()
        assert {answer.result().status_code for answer in (*loud, *quiet)} == {200}
        assert server.metric("tamis_queue_tokens") == 0


def unfinished(n_bytes: int) -> bytes:
    """The beginning of a gzip body that unpacks to `n_bytes`; its end is missing."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    start = b'{"query": "q", "documents": ["a"], "x": "'
    return packer.compress(start.ljust(n_bytes, b"x")) + packer.flush(zlib.Z_SYNC_FLUSH)


def test_row_61_unfinished_bodies_of_one_key_leave_another_its_room(keys: Keys) -> None:
    limits = {"max_total_body_bytes": MIB, "max_unpacked_ratio": 1_000}
    packed = unfinished(200_000)
    lines = ("Content-Encoding: gzip", f"Content-Length: {len(packed) + 9}", keys.line("loud"))
    with serving_fake(limits=limits, server=keys.settings) as server, ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connected(server)).sendall(head(*lines) + packed)
        until(lambda: bytes_held(server) == 1_000_000)
        late = stack.enter_context(connected(server))
        late.sendall(head(*lines) + packed)
        assert next_answer(late).status == 429
        for _ in range(5):
            assert keys.rerank(server, "quiet", ["x" * 90_000] * 4).status_code == 200
        assert bytes_held(server) == 1_000_000


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_row_61_a_bomb_of_unknown_length_holds_little_until_its_end(how: str) -> None:
    text = b'{"query": "q", "documents": ["a"], "x": "%s"}' % (b"x" * 7 * MIB)
    bomb = gzip.compress(text) if how == "gzip" else body.zstd.compress(text)
    lines = ("Transfer-Encoding: chunked", f"Content-Encoding: {how}")
    with serving_fake() as server, connected(server) as caller:
        caller.sendall(head(*lines) + b"%x\r\n%s\r\n" % (len(bomb) - 4, bomb[:-4]))
        until(lambda: bytes_held(server) >= body.UNSUSPICIOUS_BYTES)
        server.client.get("/livez")
        assert bytes_held(server) < 300_000
        assert server.metric("tamis_body_bytes") == bytes_held(server)
        caller.sendall(b"4\r\n%s\r\n0\r\n\r\n" % bomb[-4:])
        assert next_answer(caller).status == 413
        until(lambda: bytes_held(server) == 0)


def test_row_61_a_slow_upload_of_one_key_is_no_429_for_another(keys: Keys) -> None:
    body = json.dumps({"query": "q", "documents": ["a"], "x": "x" * 90_000}).encode()
    limits = {"max_total_body_bytes": 100_000}
    with serving_fake(limits=limits, server=keys.settings) as server, connected(server) as slow:
        slow.sendall(head(f"Content-Length: {len(body)}", keys.line("loud")) + body[:-1])
        until(lambda: bytes_held(server) > 90_000)
        assert keys.rerank(server, "quiet", ["x" * 40_000]).status_code == 200
        slow.sendall(body[-1:])
        assert next_answer(slow).status == 200
        until(lambda: bytes_held(server) == 0)


class Slow(WordTokenizer):
    """Notes for whom it works, and holds the first text until the gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.queries: list[str] = []
        self.is_held = False

    def encode(self, query: str, *documents: Any, **options: Any) -> list[EncodedPair]:
        """See `PairEncoder`."""
        if self.is_held:
            self.queries.append(query)
            self.gate(query)
        return super().encode(query, *documents, **options)


def long(number: int) -> list[str]:
    """Documents of a request that is tokenized in more slices than one; no two are equal."""
    return [f"{number} {n} " + "word " * 19_000 for n in range(8)]


@contextmanager
def tokenizing_slowly(**sections: Any) -> Iterator[tuple[Served, Slow]]:
    """A server whose tokenizer is held up."""
    tokenizer = Slow()
    model = fake_model(tokenizer=tokenizer)
    settings = Settings.model_validate(NO_CACHE | sections)
    with serving(settings, load=lambda _: model) as server:
        tokenizer.is_held = True
        yield server, tokenizer


def test_row_63_texts_of_a_quiet_key_are_tokenized_between_those_of_a_loud_one(
    keys: Keys,
) -> None:
    with tokenizing_slowly(server=keys.settings) as (server, slow), ThreadPoolExecutor(9) as pool:
        loud = [pool.submit(keys.rerank, server, "loud", long(n), query="loud") for n in range(4)]
        waiting = server.life.service._encoding._thread._waiting
        until(lambda: len(waiting.get("loud", [])) == 2)
        quiet = [
            pool.submit(keys.rerank, server, "quiet", [f"{n}"], query="quiet") for n in range(4)
        ]
        until(lambda: len(waiting.get("quiet", [])) == 4)
        slow.gate.opened.set()
        assert {answer.result().status_code for answer in (*quiet, *loud)} == {200}
    last = len(slow.queries) - slow.queries[::-1].index("quiet")
    assert slow.queries[:last].count("loud") <= 3
    assert slow.queries.count("loud") > 8


def test_row_63_nothing_more_is_tokenized_for_a_request_whose_time_is_over() -> None:
    with tokenizing_slowly() as (server, slow), ThreadPoolExecutor(9) as pool:
        first = pool.submit(server.rerank, "first", ["a"])
        assert slow.gate.reached.wait(60)
        late = [pool.submit(server.rerank, "late", long(n), timeout_ms=300) for n in range(4)]
        assert {answer.result().status_code for answer in late} == {504}
        slow.gate.opened.set()
        assert first.result().status_code == 200
        assert server.rerank("next", ["a"]).status_code == 200
    assert slow.queries == ["first", "next"]


def test_row_63_nothing_more_is_tokenized_for_a_caller_who_has_left() -> None:
    with tokenizing_slowly() as (server, slow), ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.rerank, "first", ["a"])
        assert slow.gate.reached.wait(60)
        body = json.dumps({"query": "left", "documents": long(0)}).encode()
        for _ in range(3):
            with connected(server) as caller:
                caller.sendall(head(f"Content-Length: {len(body)}") + body)
                until(lambda: server.life.service._encoding._waiting.n_held > 700_000)
            until(lambda: server.life.service._encoding._waiting.n_held < 10)
        slow.gate.opened.set()
        assert first.result().status_code == 200
        assert server.rerank("next", ["a"]).status_code == 200
    assert slow.queries == ["first", "next"]


N_STRINGS = (8 * MIB - 200) // 5
TINY = '"ā",'.encode() * (N_STRINGS - 1) + '"ā"'.encode()
HOSTILE = {
    "a field that nobody reads": b'{"query":"q","documents":["a"],"x":[%s]}' % TINY,
    "TEI": b'{"query":"q","texts":["a"],"x":[%s]}' % TINY,
    "a field that is ignored": b'{"query":"q","documents":["a"],"rank_fields":[%s]}' % TINY,
    "a field of a document": b'{"query":"q","documents":[{"text":"a","x":[%s]}]}' % TINY,
    "a text": b'{"query":"q","documents":[{"text":[%s]}]}' % TINY,
    "an option": b'{"query":"q","documents":["a"],"top_n":[%s]}' % TINY,
    "documents": b'{"query":"q","documents":[%s]}' % TINY,
    "keys": b'{"query":"q","documents":["a"]%s}' % b',"a":1'.ljust(6) * ((8 * MIB - 200) // 6),
    "keys of a document": b'{"query":"q","documents":[{"text":"a"%s}]}'
    % b"".join(b',"%05x":1' % n for n in range(99_000)),
}


def peak_bytes(pid: int) -> int:
    """The most that a process has had in memory."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found
    return int(found[1]) * 1024


MOST_BYTES_A_BODY_BYTE, MOST_BYTES_WHILE_PARSING = 1.5, 100 * MIB


TOO_MANY = {
    "nested": b'{"query":"q","documents":[%s,[%s]]}'
    % (b",".join([b'[1,{"a":[2,3]}]'] * 9_000), TINY),
    "by another name": b'{"query":"q","passages":[%s]}' % TINY,
    "TEI": b'{"query":"q","texts":[%s]}' % TINY,
}


@pytest.mark.parametrize(
    ("body", "n"), list(zip(TOO_MANY.values(), [9_001, N_STRINGS, N_STRINGS], strict=True))
)
def test_too_many_documents_are_counted_before_they_are_built(body: bytes, n: int) -> None:
    assert count_documents(parse_object(body)) == n


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_row_60_what_bodies_hold_is_what_is_counted(content: bytes) -> None:
    """Sixteen at a time, while the model is busy; the last bytes come for all of them at once."""
    lines = (f"Content-Length: {len(content)}", "Connection: close")
    with DoubleServer("--batch-seconds", "2", *QUIET) as process, ExitStack() as stack:
        port = int(process.url().rpartition(":")[2])
        before = resident_bytes(process.pid)
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(N_BODIES)]
        for caller in callers:
            stack.enter_context(caller)
            caller.settimeout(60)
            caller.sendall(head(*lines) + content[:-1])
        for caller in callers:
            caller.sendall(content[-1:])
        statuses = {everything(caller).split(b" ")[1] for caller in callers}
        grown = peak_bytes(process.pid) - before
    assert statuses <= {b"200", b"400", b"422", b"413", b"429"}
    assert grown < N_BODIES * 8 * MIB * MOST_BYTES_A_BODY_BYTE + MOST_BYTES_WHILE_PARSING


def slow_reader(port: int, body: bytes, *lines: str) -> socket.socket:
    """A caller who sends a request and takes nothing of its answer."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.settimeout(60)
    caller.connect(("127.0.0.1", port))
    caller.sendall(whole(body, *lines))
    return caller


def returned(n_bytes: int) -> bytes:
    """A request whose answer has about `n_bytes`."""
    body = {"query": "q", "documents": [{"text": "a", "x": "x" * n_bytes}]}
    return json.dumps(body).encode()


def test_row_62_sixty_callers_who_take_nothing_cost_bounded_memory() -> None:
    content = returned(7_500_000)
    with DoubleServer(*QUIET) as process, ExitStack() as stack:
        url = process.url()
        before = resident_bytes(process.pid)
        for n_before in range(60):
            caller = slow_reader(int(url.rpartition(":")[2]), content)
            stack.enter_context(caller)
            until(lambda n_before=n_before: n_answered(url) == n_before + 1)
        grown = peak_bytes(process.pid) - before
        small = {"query": "q", "documents": ["a"]}
        assert httpx2.post(f"{url}/rerank", json=small).status_code == 200
    assert grown < 160 * MIB


def n_answered(url: str) -> float:
    """Requests that were answered with 200."""
    answered = {"dialect": "native", "status": "200"}
    return sample(httpx2.get(f"{url}/metrics").text, "tamis_requests_total", **answered)


def test_row_62_the_oldest_answer_of_the_key_that_has_most_is_dropped(keys: Keys) -> None:
    limits = {"max_unsent_bytes": 20_000_000}
    body = returned(6_000_000)
    with serving_fake(limits=limits, server=keys.settings) as server, ExitStack() as stack:

        def ask(n_before: int, name: str) -> socket.socket:
            caller = stack.enter_context(slow_reader(server.port, body, keys.line(name)))
            until(lambda: server.metric("tamis_requests_total", **answered) == n_before + 1)
            return caller

        answered = {"dialect": "native", "status": "200"}
        names = ["quiet", "loud", "loud", "loud", "loud"]
        callers = [ask(number, name) for number, name in enumerate(names)]
        until(lambda: 18_000_000 < server.metric("tamis_unsent_bytes") < 20_000_000)
        lengths = [len(everything(caller)) for caller in callers]
        until(lambda: server.metric("tamis_unsent_bytes") == 0)
    assert [length > 6_000_000 for length in lengths] == [True, False, False, True, True]


def test_row_62_an_answer_that_takes_too_long_in_all_is_dropped(keys: Keys) -> None:
    limits = {"max_answer_seconds": 0.5}
    with serving_fake(limits=limits, server=keys.settings) as server:
        caller = slow_reader(server.port, returned(7_000_000), keys.line("loud"))
        stop = threading.Event()
        n_taken = 0
        with caller:
            started = time.monotonic()
            while not stop.wait(0.02):
                received = caller.recv(4096)
                n_taken += len(received)
                if not received or time.monotonic() - started > 30:
                    break
        assert n_taken < 7_000_000
        assert keys.rerank(server, "loud", ["a"]).status_code == 200


def test_a_long_answer_arrives_whole() -> None:
    body = returned(5_000_000)
    with serving_fake() as server:
        answer = exchange(server, whole(body))
        assert (answer.status, len(answer.body)) == (200, int(answer.headers["content-length"]))
        assert answer.json()["results"][0]["document"] == {"text": "a", "x": "x" * 5_000_000}
