"""What the server answers to requests that it can answer."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tamis import Reranker
from tamis.engine.loading import LoadedModel
from tamis.errors import ModelNotFoundError
from tamis.settings import ModelSettings, Settings
from tests.integration.serving import Gate, Served, fake_model, named, serving, serving_fake, until

QUERY = "what is the capital of france"
DOCUMENTS = [
    "berlin is the capital of germany",
    "paris is the capital of france",
    "the giant panda is a bear species endemic to china",
    "",
    "鼓筛是一种细筛",
]
TOLERANCE = 1e-4


def test_the_tutorials_request_is_answered_best_first(served: Served) -> None:
    response = served.rerank(QUERY, DOCUMENTS)
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert answer["query"] == QUERY
    assert answer["model"] == "xlm-roberta"
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert [DOCUMENTS[result["index"]] for result in answer["results"]] == [
        result["document"] for result in answer["results"]
    ]
    assert answer["usage"]["pairs"] == len(DOCUMENTS)


def test_http_and_reranker_give_the_same_order_and_logits(served: Served, tiny_model: Path) -> None:
    results = served.rerank(QUERY, DOCUMENTS).json()["results"]
    with Reranker(tiny_model, threads=1) as reranker:
        ranking = reranker.rank(QUERY, DOCUMENTS)
    assert [result["index"] for result in results] == [ranked.index for ranked in ranking]
    assert [result["score"] for result in results] == pytest.approx(
        [ranked.logit for ranked in ranking], abs=TOLERANCE
    )
    assert [result["relevance_score"] for result in results] == pytest.approx(
        [ranked.score for ranked in ranking], abs=TOLERANCE
    )


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"documents": DOCUMENTS}, {"query", "model", "results", "usage"}),
        ({"documents": DOCUMENTS, "model": "m"}, {"id", "object", "model", "results", "usage"}),
    ],
    ids=["native", "jina"],
)
def test_both_paths_speak_every_dialect_with_objects(
    served: Served, path: str, fields: dict[str, Any], keys: set[str]
) -> None:
    answer = served.client.post(path, json={"query": QUERY} | fields).json()
    assert set(answer) == keys
    assert len(answer["results"]) == len(DOCUMENTS)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_both_paths_speak_tei(served: Served, path: str) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "return_text": True}
    results = served.client.post(path, json=body).json()
    native = served.rerank(QUERY, DOCUMENTS).json()["results"]
    assert [(result["index"], result["text"]) for result in results] == [
        (result["index"], result["document"]) for result in native
    ]
    assert [result["score"] for result in results] == pytest.approx(
        [result["score"] for result in native], abs=TOLERANCE
    )


def test_objects_come_back_untouched_and_are_scored_by_their_text(served: Served) -> None:
    objects = [{"id": i, "text": text, "tags": [None, {}]} for i, text in enumerate(DOCUMENTS)]
    results = served.rerank(QUERY, objects).json()["results"]
    plain = served.rerank(QUERY, DOCUMENTS).json()["results"]
    assert [result["document"] for result in results] == [objects[r["index"]] for r in plain]
    assert [result["score"] for result in results] == pytest.approx(
        [result["score"] for result in plain], abs=TOLERANCE
    )


@pytest.mark.parametrize(("top_n", "n_results"), [(1, 1), (2, 2), (0, 5), (None, 5), (99, 5)])
def test_top_n_keeps_the_best(served: Served, top_n: int | None, n_results: int) -> None:
    best = [result["index"] for result in served.rerank(QUERY, DOCUMENTS).json()["results"]]
    kept = served.rerank(QUERY, DOCUMENTS, top_n=top_n).json()["results"]
    assert [result["index"] for result in kept] == best[:n_results]


def test_a_threshold_may_keep_nothing(served: Served) -> None:
    answer = served.rerank(QUERY, DOCUMENTS, threshold=1).json()
    assert answer["results"] == []
    assert answer["usage"]["pairs"] == len(DOCUMENTS)


def test_a_cut_document_is_counted(served: Served) -> None:
    usage = served.rerank(QUERY, ["short", "a bear " * 600]).json()["usage"]
    assert usage["truncated_documents"] == 1


@pytest.mark.parametrize("field", ["documents", "texts"])
def test_truncate_false_refuses_a_long_text_without_repeating_it(
    served: Served, field: str
) -> None:
    body = {"query": QUERY, field: ["short", "canary " * 600], "truncate": False}
    response = served.client.post("/rerank", json=body)
    assert response.status_code == 422
    assert "document 1 have more than 512 tokens" in response.json()["error"]
    assert "canary" not in response.text


def test_two_hundred_concurrent_requests_get_the_answers_they_get_alone(served: Served) -> None:
    words = " ".join(DOCUMENTS).split()
    requests = [
        [" ".join(words[(i + j) % 7 : (i * j) % 40 + 7]) for j in range(1 + i % 9)]
        for i in range(200)
    ]
    alone = [served.rerank(QUERY, documents).json()["results"] for documents in requests]
    start = threading.Barrier(len(requests))

    def ask(number: int) -> Any:
        start.wait()
        return served.rerank(QUERY, requests[number]).json()["results"]

    with ThreadPoolExecutor(start.parties) as pool:
        together = list(pool.map(ask, range(len(requests))))
    for one, other in zip(alone, together, strict=True):
        expected = {result["index"]: result["score"] for result in one}
        assert {result["index"]: result["score"] for result in other} == pytest.approx(
            expected, abs=TOLERANCE
        )
        assert [result["score"] for result in other] == sorted(
            (result["score"] for result in other), reverse=True
        )


def test_requests_that_wait_share_the_next_batch() -> None:
    gate = Gate()
    with serving_fake(gate) as server, ThreadPoolExecutor(21) as pool:
        first = pool.submit(server.rerank, "q", ["first"])
        assert gate.reached.wait(30)
        waiting = [pool.submit(server.rerank, "q", [f"document {i}"]) for i in range(20)]
        until(lambda: server.metric("tamis_queue_requests") == 20)
        gate.opened.set()
        assert [future.result().status_code for future in (first, *waiting)] == [200] * 21
        assert len(server.model.backend.batches) == 2
        assert server.metric("tamis_batch_pairs_count") == 2
        assert server.metric("tamis_batch_pairs_sum") == 21
        assert server.metric("tamis_batch_requests_sum") == 21
        assert server.metric("tamis_batch_requests_bucket", le="16.0") == 1


def test_a_cascade_marks_its_results_in_the_native_dialect_alone() -> None:
    documents = ["a bear", "a stone", "a panda", "a sieve"]
    options = Settings.model_validate({"cascade": {"keep": 2}, "model": {"name": "dear"}})
    with serving(options, load=lambda held: named(fake_model(), held.name)) as server:
        native = server.rerank("what", documents).json()
        texts = server.client.post("/rerank", json={"query": "what", "texts": documents}).json()

    marks = [result["scored_by"] for result in native["results"]]
    assert marks == ["dear", "dear", "tamis-mini", "tamis-mini"]
    assert native["usage"]["pairs"] == 4
    assert [result["index"] for result in texts] == [r["index"] for r in native["results"]]
    assert all("scored_by" not in result for result in texts)


@pytest.mark.parametrize("cascade", [{"keep": 1, "margin": 100.0}, {"keep": 99}], ids=str)
def test_a_margin_and_a_large_number_let_the_served_model_read_all(cascade: dict[str, Any]) -> None:
    options = Settings.model_validate({"cascade": cascade, "model": {"name": "dear"}})
    with serving(options, load=lambda held: named(fake_model(), held.name)) as server:
        native = server.rerank("what", ["a bear", "a stone", "a panda"]).json()

    assert [result["scored_by"] for result in native["results"]] == ["dear"] * 3


def test_a_server_with_a_cascade_names_both_models() -> None:
    options = Settings.model_validate({"cascade": {"keep": 2}, "model": {"name": "dear"}})
    with serving(options, load=lambda held: named(fake_model(), held.name)) as server:
        ready = server.client.get("/readyz").json()

    place = {"runtime": "fake", "device": "cpu", "dtype": "float32"}
    first = {"model": "tamis-mini"} | place
    assert ready == {"status": "ready", "model": "dear"} | place | {"first_stage": first}


def test_the_two_models_of_a_cascade_never_compute_at_once() -> None:
    gate, events = Gate(), list[str]()

    def second(pairs: object) -> None:
        gate(pairs)
        events.append("second")

    models = {
        "tamis-mini": fake_model(lambda _: events.append("first")),
        "dear": fake_model(second),
    }
    options = Settings.model_validate({"cascade": {"keep": 1}, "model": {"name": "dear"}})
    with (
        serving(options, load=lambda held: named(models[held.name], held.name)) as server,
        ThreadPoolExecutor(2) as callers,
    ):
        one = callers.submit(server.rerank, "one", ["a", "b"])
        assert gate.reached.wait(30)
        tokens = server.metric("tamis_queue_tokens")
        two = callers.submit(server.rerank, "two", ["a", "b"])
        until(lambda: server.metric("tamis_queue_tokens") > tokens)
        until(lambda: server.metric("tamis_queue_requests") == 0)  # the model thread has it
        gate.opened.set()
        assert (one.result().status_code, two.result().status_code) == (200, 200)

    assert events == ["first", "second", "first", "second"]


def test_a_server_whose_first_stage_is_not_there_says_that_it_failed() -> None:
    def load(settings: ModelSettings) -> LoadedModel:
        if settings.name == "missing":
            raise ModelNotFoundError("no such model")
        return fake_model()

    options = Settings.model_validate({"cascade": {"keep": 2, "model": "missing"}})
    with serving(options, load=load) as server:
        assert server.client.get("/readyz").json()["status"] == "failed"
        assert server.failures == ["load"]
