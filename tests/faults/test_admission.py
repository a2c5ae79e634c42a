"""Rows 1 to 5: too much, too late, gone, too large beside small, one caller beside another."""

import json
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tamis.engine.pairs import EncodedPair
from tamis.server.keys import make_key
from tamis.testing import WordTokenizer
from tests.faults.doubles import FaultyBackend, Steps, has_text, serving_on
from tests.integration.serving import Gate, Served, fake_model, serving, serving_fake, until

JAIN = 0.9
REFUSED_WITHIN_SECONDS = 0.05


def ask_and_leave(server: Served, document: str) -> socket.socket:
    """Send a request on a connection of its own; the answer is not waited for."""
    body = json.dumps({"query": "q", "documents": [document]}).encode()
    caller = socket.create_connection(("127.0.0.1", server.port))
    head = f"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    caller.sendall(head.encode() + body)
    return caller


def test_row_1_beyond_a_full_queue_each_is_refused_at_once_and_nothing_of_it_is_computed() -> None:
    gate = Gate()
    room = {"max_queued_tokens": 6 * 4, "max_batch_tokens": 6}
    with serving_fake(gate, scheduler=room) as server, ThreadPoolExecutor(4) as pool:
        inside = [pool.submit(server.rerank, "q", ["running"])]
        assert gate.reached.wait(60)
        inside += [pool.submit(server.rerank, "q", [f"waits{n}"]) for n in range(3)]
        until(lambda: server.metric("tamis_queue_tokens") == 24)
        seconds = []
        for n in range(10):
            started = time.perf_counter()
            refused = server.rerank("q", [f"refused{n}"])
            seconds.append(time.perf_counter() - started)
            assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
            assert int(refused.headers["retry-after"]) >= 1
        assert np.median(seconds) < REFUSED_WITHIN_SECONDS
        gate.opened.set()
        assert [answer.result().status_code for answer in inside] == [200] * 4
        batches = server.model.backend.batches
        assert sum(map(len, batches)) == 4
        assert server.metric("tamis_requests_total", dialect="native", status="429") == 10
        assert server.metric("tamis_requests_total", dialect="native", status="200") == 4
        assert server.metric("tamis_queue_tokens") == 0


def test_row_1_once_a_rate_is_known_retry_after_is_how_long_the_surplus_takes() -> None:
    gate = Gate()
    batches: list[object] = []

    def slow(pairs: Sequence[object]) -> None:
        batches.append(pairs)
        if len(batches) == 1:
            time.sleep(0.5)  # this is the rate: 6 tokens in half a second
        else:
            gate(pairs)

    room = {"max_queued_tokens": 600, "max_batch_tokens": 6}
    with serving_fake(slow, scheduler=room) as server, ThreadPoolExecutor(1) as pool:
        assert server.rerank("q", ["a"]).status_code == 200
        inside = pool.submit(server.rerank, "q", [f"a{n}" for n in range(100)])
        until(lambda: server.metric("tamis_queue_tokens") == 600)
        few, many = (server.rerank("q", [f"b{m}" for m in range(n)]) for n in (1, 100))
        gate.opened.set()
        assert inside.result().status_code == 200
        assert [few.status_code, many.status_code] == [429, 429]
        assert int(few.headers["retry-after"]) <= 2  # 6 tokens: half a second, and jitter
        assert 8 <= int(many.headers["retry-after"]) <= 60  # 100 tokens or more: 8 s, and jitter


def test_row_2_what_expires_in_the_queue_is_504_and_the_younger_still_share_a_batch() -> None:
    gate = Gate()
    with serving_fake(gate) as server, ThreadPoolExecutor(4) as pool:
        running = pool.submit(server.rerank, "q", ["running"])
        assert gate.reached.wait(60)
        late = pool.submit(server.rerank, "q", ["expired"], timeout_ms=100)
        younger = [pool.submit(server.rerank, "q", [text]) for text in ("young", "younger")]
        expired = late.result()
        assert (expired.status_code, expired.json()["code"]) == (504, "deadline_exceeded")
        until(lambda: server.metric("tamis_queue_requests") == 2)
        gate.opened.set()
        assert [answer.result().status_code for answer in (running, *younger)] == [200] * 3
        first, second = server.model.backend.batches
        assert len(first) == 1
        assert len(second) == 2
        assert not any(has_text(pair, "expired") for pair in (*first, *second))
        assert server.metric("tamis_queue_tokens") == 0


@pytest.mark.parametrize("partial", [False, True])
def test_row_2_what_expires_before_it_is_tokenized_is_answered_in_time(partial: bool) -> None:
    gate = Gate()

    class Slow(WordTokenizer):
        """Waits with a text of one's own until the gate is opened."""

        def encode(self, query: str, *documents: Any, **options: Any) -> list[EncodedPair]:
            if query == "slow":
                gate(query)
            return super().encode(query, *documents, **options)

    model = fake_model(tokenizer=Slow())
    with serving(load=lambda _: model) as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.rerank, "slow", ["a"])
        assert gate.reached.wait(60)
        late = server.rerank("q", ["expired"], timeout_ms=100, partial=partial)
        if partial:
            (unscored,) = late.json()["results"]
            assert (late.status_code, unscored["error"]["code"]) == (200, "deadline_exceeded")
        else:
            assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        gate.opened.set()
        assert slow.result().status_code == 200
        pairs = [pair for batch in server.model.backend.batches for pair in batch]
        assert not any(has_text(pair, "expired") for pair in pairs)


def test_row_3_a_caller_who_is_gone_while_queued_costs_nothing_more() -> None:
    gate = Gate()
    with serving_fake(gate) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.rerank, "q", ["running"])
        assert gate.reached.wait(60)
        with ask_and_leave(server, "gone"):
            until(lambda: server.metric("tamis_queue_requests") == 1)
        until(lambda: server.metric("tamis_cancelled_requests_total") == 1)
        assert server.metric("tamis_queue_requests") == 0
        assert server.metric("tamis_queue_tokens") == 6  # the running one's
        gate.opened.set()
        assert running.result().status_code == 200
        assert server.rerank("q", ["next"]).status_code == 200
        pairs = [pair for batch in server.model.backend.batches for pair in batch]
        assert len(pairs) == 2
        assert not any(has_text(pair, "gone") for pair in pairs)
        assert server.metric("tamis_queue_tokens") == 0


def test_row_3_a_caller_who_is_gone_while_it_runs_gives_its_place_back() -> None:
    gate = Gate()
    with serving_fake(gate, scheduler={"max_queued_tokens": 6}) as server:
        with ask_and_leave(server, "gone"):
            assert gate.reached.wait(60)
        until(lambda: server.metric("tamis_cancelled_requests_total") == 1)
        assert server.metric("tamis_queue_tokens") == 0
        gate.opened.set()
        assert server.rerank("q", ["next"]).status_code == 200
        assert [len(batch) for batch in server.model.backend.batches] == [1, 1]


def test_row_4_a_small_request_behind_a_thousand_documents_waits_for_one_batch_more() -> None:
    steps = Steps()
    with (
        serving_on(FaultyBackend(), scheduler={"max_batch_tokens": 60}) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        backend = server.model.backend
        backend._before_forward = steps
        large = pool.submit(server.rerank, "q", [f"large {n}" for n in range(1000)])
        assert steps.come.acquire(timeout=60)
        small = pool.submit(server.rerank, "q", [f"small {n}" for n in range(5)])
        until(lambda: server.metric("tamis_queue_requests") == 2)
        running = len(backend.batches)
        steps.open()
        assert small.result().status_code == 200
        assert large.result().status_code == 200
        served_by = [
            number
            for number, batch in enumerate(backend.batches)
            if any(has_text(pair, "small") for pair in batch)
        ]
        assert max(served_by) - running <= 1  # the running one is number `running` - 1
        assert len(backend.batches) >= 100


N_LOUD, N_QUIET, N_DOCUMENTS = 100, 10, 10


def test_row_5_a_key_that_floods_leaves_the_other_its_share(tmp_path: Path) -> None:
    """Ten times the load: while both have work, both get the same (Jain's index)."""
    steps = Steps()
    made = {name: make_key(name) for name in ("loud", "quiet")}
    path = tmp_path / "keys.txt"
    path.write_text("\n".join(line for _, line in made.values()))
    own = {"keys_file": path, "metrics_open": True}
    with (
        serving_on(FaultyBackend(), server=own, scheduler={"max_batch_tokens": 80}) as server,
        ThreadPoolExecutor(N_LOUD + N_QUIET) as pool,
    ):
        backend = server.model.backend
        backend._before_forward = steps

        def ask(name: str, number: int) -> int:
            documents = [f"{name} {number} {n}" for n in range(N_DOCUMENTS)]
            body = {"query": "q", "documents": documents}
            with httpx2.Client(base_url=server.client.base_url, timeout=60) as client:
                headers = {"authorization": f"Bearer {made[name][0]}"}
                return client.post("/rerank", json=body, headers=headers).status_code

        callers = [pool.submit(ask, "loud", n) for n in range(N_LOUD)]
        until(lambda: server.metric("tamis_queue_tokens") == N_LOUD * N_DOCUMENTS * 8)
        callers += [pool.submit(ask, "quiet", n) for n in range(N_QUIET)]
        everybody = (N_LOUD + N_QUIET) * N_DOCUMENTS
        until(lambda: server.metric("tamis_queue_tokens") == everybody * 8)
        running = len(backend.batches)
        steps.open()
        assert {caller.result() for caller in callers} == {200}
        batches = backend.batches[running:]

    shares = np.zeros(2)
    for batch in batches:
        n_quiet = sum(has_text(pair, "quiet") for pair in batch)
        shares += [len(batch) - n_quiet, n_quiet]
        if shares[1] == N_QUIET * N_DOCUMENTS:
            break
    assert shares[1] == N_QUIET * N_DOCUMENTS
    assert shares.sum() ** 2 / (2 * (shares**2).sum()) >= JAIN
