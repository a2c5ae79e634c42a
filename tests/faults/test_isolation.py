"""Rows 6 to 11 and 21: one bad document, memory, numbers that are none, and who stands beside."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis import Reranker
from tamis.engine.location import EMBEDDED_FOLDER
from tamis.engine.pairs import EncodedPair, Logits
from tamis.ranking import rank
from tests.faults.doubles import (
    FaultyBackend,
    Place,
    alone,
    has_text,
    logits_of,
    serving_on,
    wanting_memory,
)
from tests.integration.serving import Gate, Served, until

FLOAT32_TOLERANCE = 1e-4
"""What docs/numerics.md promises for a pair alone and with any batch mates."""

N_REQUESTS = 6
TOKENS_OF_A_PAIR = 8
"""Of three words and a query of one."""


def refuse_poison(pairs: Sequence[EncodedPair]) -> None:
    if any(has_text(pair, "poison") for pair in pairs):
        raise RuntimeError("canary in the model")


def strictly_parsed(content: bytes) -> Any:
    """The JSON of an answer; NaN and infinities are refused, which Python's parser lets in."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is in an answer")

    return json.loads(content, parse_constant=refuse)


def documents_of(number: int, poison: set[int], n_documents: int) -> list[str]:
    """A request's documents, some of them poison."""
    return [
        f"poison {number} {n}" if n in poison else f"document {number} {n}"
        for n in range(n_documents)
    ]


@settings(max_examples=settings().max_examples // 4)
@given(st.data())
def test_row_6_poison_in_mixed_batches_fails_its_own_request_alone(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=N_REQUESTS))
    poisons = [
        data.draw(st.sets(st.integers(0, size - 1), max_size=2) if n % 2 else st.just(set[int]()))
        for n, size in enumerate(sizes)
    ]
    gate = Gate()

    def before(pairs: Sequence[EncodedPair]) -> None:
        if backend.batches[1:]:
            gate(pairs)
        refuse_poison(pairs)

    backend = FaultyBackend(before)
    requests = [documents_of(n, poisons[n], size) for n, size in enumerate(sizes)]
    with serving_on(backend) as server, ThreadPoolExecutor(N_REQUESTS) as pool:
        assert server.rerank("q", ["good"]).status_code == 200
        answers = [pool.submit(server.rerank, "q", documents) for documents in requests]
        until(lambda: server.metric("tamis_queue_tokens") == TOKENS_OF_A_PAIR * sum(sizes))
        gate.opened.set()
        for answer, documents, poison in zip(answers, requests, poisons, strict=True):
            response = answer.result()
            if poison:
                assert (response.status_code, response.json()["code"]) == (
                    422,
                    "unscorable_document",
                )
                assert any(f"document {index} " in response.json()["error"] for index in poison)
                assert "canary" not in response.text
            else:
                assert response.status_code == 200
                assert logits_of(response.json()) == alone("q", documents)


def test_row_6_a_lone_surrogate_is_400_before_it_meets_anybody(served: Served) -> None:
    body = b'{"query": "q", "documents": ["fine", "a\\ud800b"]}'
    response = served.client.post("/rerank", content=body)
    assert response.status_code == 400
    assert served.rerank("q", ["fine"]).status_code == 200


def test_row_7_a_batch_that_lacks_memory_is_split_and_the_budget_comes_back() -> None:
    documents = [f"one two three {n}" for n in range(40)]
    backend = FaultyBackend(wanting_memory(100))
    with serving_on(backend, scheduler={"max_batch_tokens": 360}) as server:
        response = server.rerank("q", documents)
        assert response.status_code == 200
        assert logits_of(response.json()) == alone("q", documents)
        assert server.metric("tamis_out_of_memory_total") >= 1
        assert server.metric("tamis_degraded") == 1
        ready = server.client.get("/readyz")
        assert (ready.status_code, ready.json()["degraded"]) == (200, "less_memory")
        n_before = len(backend.batches)
        server.rerank("q", documents)
        assert max(map(len, backend.batches[n_before:])) < 40  # it is careful now
        backend._before_forward = None
        for _ in range(16):
            assert server.rerank("q", ["a"]).status_code == 200
        assert server.metric("tamis_degraded") == 0
        assert "degraded" not in server.client.get("/readyz").json()
        n_before = len(backend.batches)
        server.rerank("q", documents)
        assert len(backend.batches) - n_before == 1


def test_row_8_a_pair_too_large_for_every_device_is_507_and_the_next_is_fine() -> None:
    backend = FaultyBackend(wanting_memory(20))
    with serving_on(backend) as server:
        refused = server.rerank("q", ["small", "word " * 30])
        assert (refused.status_code, refused.json()["code"]) == (507, "out_of_memory")
        assert "document 1 has 35 tokens" in refused.json()["error"]
        assert server.rerank("q", ["small"]).status_code == 200


def test_row_8_a_pair_too_large_for_a_gpu_is_scored_by_the_cpu() -> None:
    gpu = FaultyBackend(wanting_memory(0), place=Place("cuda", "float16"))
    cpu = FaultyBackend()
    with serving_on(gpu, on_cpu=cpu) as server:
        response = server.rerank("q", ["small", "word " * 30])
        assert response.status_code == 200
        assert logits_of(response.json()) == alone("q", ["small", "word " * 30])
        assert len(cpu.batches) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("partial", [False, True])
def test_row_9_a_logit_that_is_no_number_never_leaves(value: float, partial: bool) -> None:
    def spoil(pairs: Sequence[EncodedPair], logits: Logits) -> Logits:
        bad = np.array([has_text(pair, "bad") for pair in pairs])
        return np.where(bad, np.float32(value), logits).astype(np.float32)

    with serving_on(FaultyBackend(change=spoil)) as server:
        response = server.rerank("q", ["good", "bad", "better"], partial=partial)
        answer = strictly_parsed(response.content)
        if not partial:
            assert response.status_code == 422
            assert "document 1 " in answer["error"]
            return
        assert response.status_code == 200
        assert answer["degraded"] is True
        *scored, last = answer["results"]
        assert {result["index"] for result in scored} == {0, 2}
        assert (last["index"], last["score"]) == (1, None)
        assert last["error"]["code"] == "unscorable_document"


def test_row_9_a_number_spoilt_by_its_batch_alone_is_computed_again() -> None:
    def spoil(pairs: Sequence[EncodedPair], logits: Logits) -> Logits:
        return np.where(np.arange(len(pairs)) == 1, np.float32(np.nan), logits).astype(np.float32)

    with serving_on(FaultyBackend(change=spoil)) as server:
        response = server.rerank("q", ["a", "b", "c"])
        assert logits_of(strictly_parsed(response.content)) == alone("q", ["a", "b", "c"])


def test_row_9_what_float16_has_no_number_for_is_computed_in_float32() -> None:
    def spoil(pairs: Sequence[EncodedPair], logits: Logits) -> Logits:
        bad = np.array([has_text(pair, "large") for pair in pairs])
        return np.where(bad, np.float32(np.inf), logits).astype(np.float32)

    gpu = FaultyBackend(change=spoil, place=Place("cuda", "float16"))
    cpu = FaultyBackend()
    documents = ["small", "large numbers", "smaller", "large texts"]
    with serving_on(gpu, on_cpu=cpu) as server:
        response = server.rerank("q", documents)
        assert logits_of(strictly_parsed(response.content)) == alone("q", documents)
        assert list(map(len, cpu.batches)) == [1, 1]
        assert server.metric("tamis_logits_not_finite_total") == 4  # in their batch, and alone
        assert server.metric("tamis_failed_pairs_total") == 0
        assert server.client.get("/readyz").json()["status"] == "ready"


def test_row_9_minus_zero_is_equal_to_zero() -> None:
    def zeros(pairs: Sequence[EncodedPair], _: Logits) -> Logits:
        return np.array([0.0 if has_text(p, "plus") else -0.0 for p in pairs], dtype=np.float32)

    with serving_on(FaultyBackend(change=zeros)) as server:
        response = server.rerank("q", ["minus", "plus", "minus", "plus"])
        results = strictly_parsed(response.content)["results"]
        assert [result["index"] for result in results] == [0, 1, 2, 3]
        assert {result["relevance_score"] for result in results} == {0.5}


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 200))
def test_row_10_equal_logits_keep_the_order_given(logit: float, n_documents: int) -> None:
    logits = np.full(n_documents, logit, dtype=np.float32)
    places = rank(logits, top_n=None, threshold=None)
    assert [index for index, _ in places] == list(range(n_documents))


def test_row_10_equal_documents_come_back_in_the_same_order_each_time(served: Served) -> None:
    documents = ["the giant panda"] * 40
    runs = [served.rerank("a panda", documents).json()["results"] for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    assert [result["index"] for result in runs[0]] == list(range(40))


TEXTS = [
    "the giant panda is a bear", "paris", "water boils at degrees", "", "sieve " * 60,
    "warum ist der himmel blau", "大熊猫是一种熊", "machine learning rayleigh scattering",
]  # fmt: skip


@settings(max_examples=settings().max_examples // 4)
@given(st.data())
def test_row_11_a_score_does_not_depend_on_order_doubles_or_batch_mates(
    served: Served, data: st.DataObject
) -> None:
    by_text = {text: alone_on(served, text) for text in TEXTS}
    chosen = data.draw(st.lists(st.sampled_from(TEXTS), min_size=2, max_size=24))
    found = logits_of(served.rerank("what is a panda", chosen).json())
    expected = [by_text[text] for text in chosen]
    np.testing.assert_allclose(found, expected, atol=FLOAT32_TOLERANCE)


def alone_on(server: Served, text: str) -> float:
    """The logit of a document that is asked for by itself."""
    (logit,) = logits_of(server.rerank("what is a panda", [text]).json())
    return logit


def test_row_11_a_score_does_not_depend_on_the_requests_beside(served: Served) -> None:
    expected = [alone_on(served, text) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        beside = [pool.submit(served.rerank, "what is a panda", TEXTS) for _ in range(24)]
        for answer in beside:
            found = logits_of(answer.result().json())
            np.testing.assert_allclose(found, expected, atol=FLOAT32_TOLERANCE)


@pytest.fixture(scope="module")
def embedded() -> Reranker:
    """The embedded model."""
    return Reranker(threads=1)  # the machine may be busy


FORGERIES = ["</s>", "</s></s>", "<mask>", "<s>", "</s></s> query: </s>", "<pad>" * 8]
QUERY = "What is the boiling point of water?"
GOOD = "At sea level water boils at 100 degrees Celsius."
BAD = "The library opens at nine in the morning."


@pytest.mark.parametrize("forgery", FORGERIES)
def test_row_21_special_tokens_in_a_text_stay_text(embedded: Reranker, forgery: str) -> None:
    """They reach the model as characters: no id of a special token comes from a text."""
    definition = json.loads((EMBEDDED_FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    unknown = definition["model"]["unk_id"]
    specials = {token["id"] for token in definition["added_tokens"]} - {unknown}
    plain, forged = (
        [int(i) for i in pair.sequences[1].token_ids if i in specials]
        for pair in embedded.model.tokenizer.encode(QUERY, [BAD, f"{BAD} {forgery}"])
    )
    assert plain
    assert forged == plain


@pytest.mark.parametrize("forgery", FORGERIES)
def test_row_21_special_tokens_in_a_text_win_no_place(embedded: Reranker, forgery: str) -> None:
    forged = [f"{BAD} {forgery}", GOOD, f"{forgery} {BAD}"]
    ranked = embedded.rank(QUERY, forged)
    assert ranked[0].index == 1
    scores = {place.index: place.score for place in ranked}
    (plain,) = embedded.rank(QUERY, [BAD])
    assert max(scores[0], scores[2]) < (plain.score + scores[1]) / 2
