"""Bad input, a full house and a failing model: clean answers, and the others unaffected."""

import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tamis.engine.pairs import EncodedPair
from tamis.errors import ModelNotFoundError
from tamis.settings import Settings
from tamis.testing import WordTokenizer
from tests.integration.serving import Gate, Served, fake_model, serving, serving_fake, until
from tests.unit.wire.test_parsing import MALFORMED

WORDS_OF_POISON = 13
"""A document of so many words breaks the model of `fragile`."""


def refuse_poison(pairs: Sequence[EncodedPair]) -> None:
    if any(pair.n_tokens == WORDS_OF_POISON + 5 for pair in pairs):
        raise RuntimeError("canary in the model")


@pytest.fixture(scope="module")
def fragile() -> Iterator[Served]:
    """A server on doubles whose model fails on poison; small limits."""
    limits = {"max_body_bytes": 10_000, "max_documents": 4}
    with serving_fake(refuse_poison, limits=limits) as server:
        yield server


def assert_it_still_answers(server: Served) -> None:
    assert server.rerank("q", ["a", "b"]).status_code == 200


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_body_is_400_with_a_sentence(served: Served, data: bytes) -> None:
    response = served.client.post("/rerank", content=data)
    assert response.status_code == 400
    assert response.json()["code"] == "malformed_body"
    assert_it_still_answers(served)


@pytest.mark.parametrize("depth", [13, 14, 500, 900, *range(930, 1000, 3)])
def test_a_deep_document_comes_back_or_is_malformed(served: Served, depth: int) -> None:
    deep = '{"text": "a", "more": ' + "[" * depth + "]" * depth + "}"
    response = served.client.post("/rerank", content=f'{{"query": "q", "documents": [{deep}]}}')
    assert response.status_code == (200 if depth <= 13 else 400)


def test_a_large_integer_comes_back_as_it_was(served: Served) -> None:
    data = b'{"query": "q", "documents": [{"text": "a", "id": 123456789012345678901234567890}]}'
    response = served.client.post("/rerank", content=data)
    assert response.json()["results"][0]["document"]["id"] == 123456789012345678901234567890


@pytest.mark.parametrize(
    "text", ["\0", "\u202e\u2066", "e" + "\u0301" * 5_000, "ﷺ" * 2_000, "\ufffe"]
)
def test_odd_unicode_is_scored(served: Served, text: str) -> None:
    response = served.rerank(text, [text, {"text": text}])
    assert response.status_code == 200
    assert response.json()["results"][0]["document"] in (text, {"text": text})


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "`query`"),
        ({"query": "q"}, 400, "`documents`"),
        ({"documents": ["a"]}, 400, "`query`"),
        ({"query": "", "documents": ["a"]}, 400, "`query`"),
        ({"query": "q", "documents": []}, 400, "`documents`"),
        ({"query": "q", "documents": "a"}, 422, "`documents`"),
        ({"query": "q", "documents": ["a", {"id": 1}]}, 422, "document 1"),
        ({"query": "q", "documents": [{"text": None}]}, 422, "document 0"),
        ({"query": "q", "documents": ["a"], "top_n": -1}, 422, "`top_n`"),
        ({"query": "q", "documents": ["a"], "threshold": 2}, 422, "`threshold`"),
    ],
    ids=str,
)
def test_the_native_error_is_a_sentence_that_names_the_field(
    served: Served, body: dict[str, Any], status: int, field: str
) -> None:
    response = served.client.post("/rerank", json=body)
    assert response.status_code == status
    error = response.json()
    assert set(error) == {"error", "code", "request_id"}
    assert field in error["error"]
    assert error["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("n_bytes", [10_001, 5_000_000])
def test_a_body_over_the_limit_is_413(fragile: Served, n_bytes: int) -> None:
    response = fragile.client.post("/rerank", content=b" " * n_bytes)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert "10,000 bytes" in response.json()["error"]
    assert_it_still_answers(fragile)


def test_a_body_in_chunks_is_counted_too(fragile: Served) -> None:
    chunks = (b" " * 1_000 for _ in range(11))
    assert fragile.client.post("/rerank", content=chunks).status_code == 413


def test_a_body_at_the_limit_is_read(fragile: Served) -> None:
    body = json.dumps({"query": "q", "documents": ["a"]}).encode()
    assert fragile.client.post("/rerank", content=body.ljust(10_000)).status_code == 200
    assert fragile.client.post("/rerank", content=body.ljust(10_001)).status_code == 413


@pytest.mark.parametrize("field", ["documents", "texts"])
def test_documents_over_the_limit_are_422(fragile: Served, field: str) -> None:
    at_limit = fragile.client.post("/rerank", json={"query": "q", field: ["a"] * 4})
    above = fragile.client.post("/rerank", json={"query": "q", field: ["a"] * 5})
    assert (at_limit.status_code, above.status_code) == (200, 422)
    assert above.json()["error"] == "5 documents, at most 4 allowed; split the request"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"documents": ["fine", "poison " * WORDS_OF_POISON]}, 422),
        ({"documents": ["fine", "poison " * WORDS_OF_POISON], "model": "m"}, 422),
        ({"texts": ["fine", "poison " * WORDS_OF_POISON]}, 422),
    ],
    ids=["native", "jina", "tei"],
)
def test_a_document_the_model_fails_on_is_named_without_its_text_and_others_work(
    fragile: Served, fields: dict[str, Any], status: int
) -> None:
    response = fragile.client.post("/rerank", json={"query": "q"} | fields)
    assert response.status_code == status
    assert "document 1 cannot be scored: the model fails on it" in response.text
    assert "canary" not in response.text
    assert "poison" not in response.text
    assert_it_still_answers(fragile)


def test_a_document_that_is_too_long_is_named_by_its_own_index(fragile: Served) -> None:
    """Equal documents are computed once, and known ones not at all."""
    assert fragile.rerank("q", ["known"]).status_code == 200
    documents = ["known", "same", "same", "long " * 600]
    answer = fragile.rerank("q", documents, truncate=False)
    assert answer.status_code == 422
    assert "document 3 " in answer.json()["error"]


def test_an_error_that_nobody_foresaw_has_a_request_id_and_no_text() -> None:
    class BrokenTokenizer(WordTokenizer):
        def encode(self, query: str, *documents: Any, **options: Any) -> list[EncodedPair]:
            if query == "q":
                raise ZeroDivisionError("canary")
            return super().encode(query, *documents, **options)

    model = fake_model(tokenizer=BrokenTokenizer())
    with serving(load=lambda _: model) as server:
        response = server.client.post(
            "/rerank",
            json={"query": "q", "documents": ["a"]},
            headers={"x-request-id": "mine"},
        )
        assert response.status_code == 500
        assert response.headers["x-request-id"] == "mine"
        assert response.headers["connection"] == "close"  # uvicorn does, and a pool must know
        assert response.json()["code"] == "internal_error"
        assert response.json()["request_id"] == "mine"
        assert "canary" not in response.text
        assert server.metric("tamis_requests_total", dialect="native", status="500") == 1
        assert server.client.get("/livez").status_code == 200


def test_a_full_queue_is_429_with_retry_after_and_those_inside_are_answered() -> None:
    gate = Gate()
    room = {"max_queued_tokens": 30, "max_batch_tokens": 30}
    with serving_fake(gate, scheduler=room) as server, ThreadPoolExecutor(2) as pool:
        inside = [pool.submit(server.rerank, "q", ["a", "b"])]
        assert gate.reached.wait(30)
        inside.append(pool.submit(server.rerank, "q", ["c", "d"]))
        until(lambda: server.metric("tamis_queue_tokens") == 24)
        for _ in range(10):
            refused = server.rerank("q", ["e", "f"])
            assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
            assert int(refused.headers["retry-after"]) >= 1
        assert len(server.model.backend.batches) == 1
        gate.opened.set()
        assert [future.result().status_code for future in inside] == [200, 200]
        assert server.rerank("q", ["e", "f"]).status_code == 200
        assert server.metric("tamis_requests_total", dialect="native", status="429") == 10
        assert server.metric("tamis_queue_tokens") == 0


def test_a_request_that_never_fits_the_queue_is_413_and_not_429() -> None:
    with serving_fake(scheduler={"max_queued_tokens": 30}) as server:
        refused = server.rerank("q", ["word " * 40])
        assert (refused.status_code, refused.json()["code"]) == (413, "request_too_large")
        assert "retry-after" not in refused.headers


def test_a_caller_who_leaves_in_mid_body_is_no_error_of_the_servers() -> None:
    with serving_fake() as server:
        with socket.create_connection(("127.0.0.1", server.port)) as caller:
            caller.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        until(lambda: server.metric("tamis_requests_total", dialect="native", status="499") == 1)
        assert server.metric("tamis_requests_total", dialect="native", status="500") == 0
        assert_it_still_answers(server)


@pytest.mark.parametrize(
    ("fields", "key"), [({"documents": ["a"]}, "code"), ({"texts": ["a"]}, "error_type")]
)
def test_while_the_model_loads_requests_are_503_with_retry_after(
    fields: dict[str, Any], key: str
) -> None:
    gate = Gate()
    model = fake_model()

    def load(settings: object) -> Any:
        gate(settings)
        return model

    with serving(load=load, ready=False) as server:
        assert gate.reached.wait(30)
        assert server.client.get("/livez").status_code == 200
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/readyz").json() == {"status": "loading"}
        early = server.client.post("/rerank", json={"query": "q"} | fields)
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        assert early.json()[key] in ("not_ready", "Unhealthy")
        gate.opened.set()
        until(lambda: server.client.get("/readyz").status_code == 200)
        assert server.client.get("/readyz").json() == {
            "status": "ready",
            "model": "fake",
            "runtime": "fake",
            "device": "cpu",
            "dtype": "float32",
        }
        assert server.client.post("/rerank", json={"query": "q"} | fields).status_code == 200


@pytest.mark.parametrize("error", [ModelNotFoundError, KeyError])
def test_a_model_that_does_not_load_is_a_failure_and_not_a_wait_without_end(
    error: type[Exception],
) -> None:
    def load(_: object) -> Any:
        raise error("num_hidden_layers")

    with serving(load=load) as server:
        assert server.failures == ["load"]
        assert "num_hidden_layers" in str(server.life.failure)
        response = server.client.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "failed"})
        assert server.rerank("q", ["a"]).status_code == 503


def test_a_scheduler_that_dies_makes_the_server_unready() -> None:
    class Death(BaseException):
        """No `Exception`: it goes past the scheduler's net and ends its loop."""

    def die(_: object) -> None:
        raise Death

    with serving_fake(die) as server:
        assert server.client.get("/readyz").status_code == 200
        assert server.rerank("q", ["a"]).status_code in (500, 503)
        until(lambda: server.client.get("/readyz").status_code == 503)
        assert server.client.get("/readyz").json()["status"] == "failed"
        assert server.client.get("/livez").status_code == 503  # nothing else makes it well
        assert server.rerank("q", ["a"]).status_code == 503


@pytest.mark.parametrize("field", ["documents", "texts"])
def test_what_is_not_done_when_the_time_to_drain_is_over_is_503(field: str) -> None:
    gate = Gate()
    drain = {"drain_seconds": 0}
    with serving_fake(gate, server=drain) as server, ThreadPoolExecutor(1) as pool:
        body = {"query": "q", field: ["a"]}
        answer = pool.submit(server.client.post, "/rerank", json=body)
        assert gate.reached.wait(30)
        server.stop()
        response = answer.result()
        gate.opened.set()
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "shutting down" in response.json()["error"]


def test_settings_reach_the_servers_limits() -> None:
    settings = Settings.model_validate({"limits": {"max_documents": 1}})
    with serving(settings, load=lambda _: fake_model()) as server:
        assert server.rerank("q", ["a", "b"]).status_code == 422
