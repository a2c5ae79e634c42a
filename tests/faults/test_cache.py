"""Rows 32 to 34: keys that must differ, a stampede, callers beside each other."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tamis.server.keys import make_key
from tamis.settings import Settings
from tests.faults.doubles import FaultyBackend, alone, logits_of, model_on
from tests.integration.serving import Gate, Served, named, serving, until

DOCUMENTS = ["a bear", "the giant panda", "water boils"]


def serving_cached(backend: FaultyBackend, **sections: Any) -> Any:
    """A server that keeps scores."""
    return serving(Settings.model_validate(sections), load=lambda _: model_on(backend))


@pytest.fixture
def backend() -> FaultyBackend:
    return FaultyBackend()


@pytest.fixture
def server(backend: FaultyBackend) -> Iterator[Served]:
    with serving_cached(backend) as server:
        yield server


def n_scored(backend: FaultyBackend) -> int:
    return sum(map(len, backend.batches))


def test_row_32_pairs_that_run_together_alike_are_different_pairs(
    server: Served, backend: FaultyBackend
) -> None:
    n_before = n_scored(backend)

    answers = [server.rerank(query, [text]).json() for query, text in (("ab", "c"), ("a", "bc"))]

    assert n_scored(backend) - n_before == 2
    assert [answer["usage"]["cached_pairs"] for answer in answers] == [0, 0]
    assert logits_of(answers[0]) == alone("ab", ["c"])
    assert logits_of(answers[1]) == alone("a", ["bc"])


def test_row_33_of_a_hundred_callers_of_one_cold_pair_one_has_it_computed() -> None:
    gate = Gate()
    backend = FaultyBackend(gate)
    with serving_cached(backend) as server, ThreadPoolExecutor(100) as pool:
        callers = [pool.submit(server.rerank, "q", DOCUMENTS) for _ in range(100)]
        assert gate.reached.wait(60)
        until(lambda: server.metric("tamis_queue_tokens") > 0)
        gate.opened.set()
        answers = [caller.result() for caller in callers]

    assert [answer.status_code for answer in answers] == [200] * 100
    assert n_scored(backend) == len(DOCUMENTS)
    assert {tuple(logits_of(answer.json())) for answer in answers} == {tuple(alone("q", DOCUMENTS))}
    cached = [answer.json()["usage"]["cached_pairs"] for answer in answers]
    assert sorted(cached) == [0] + [len(DOCUMENTS)] * 99


@pytest.mark.parametrize(("shared", "n_computed"), [(False, 6), (True, 3)])
def test_row_34_a_caller_neither_sees_nor_spoils_what_another_has(
    tmp_path: Path, backend: FaultyBackend, shared: bool, n_computed: int
) -> None:
    keys, lines = zip(*(make_key(name) for name in ("a", "b")), strict=True)
    (tmp_path / "keys").write_text("\n".join(lines))
    sections = {"server": {"keys_file": tmp_path / "keys"}, "cache": {"shared": shared}}
    with serving_cached(backend, **sections) as server:
        cached = [
            server.client.post(
                "/rerank",
                json={"query": "q", "documents": DOCUMENTS},
                headers={"authorization": f"Bearer {key}"},
            ).json()["usage"]["cached_pairs"]
            for key in (keys[0], keys[1], keys[0])
        ]

    assert n_scored(backend) == n_computed
    assert cached == [0, 3 if shared else 0, 3]


def test_of_a_request_only_what_is_new_is_computed_and_the_rest_is_what_it_was(
    server: Served, backend: FaultyBackend
) -> None:
    first = server.rerank("q", DOCUMENTS).json()
    n_before = n_scored(backend)

    second = server.rerank("q", [*DOCUMENTS, "new"]).json()

    assert n_scored(backend) - n_before == 1
    assert logits_of(second) == alone("q", [*DOCUMENTS, "new"])
    assert logits_of(second)[:3] == logits_of(first)
    assert second["usage"]["cached_pairs"] == 3
    assert second["usage"]["pairs"] == 4
    tokens = [answer["usage"]["total_tokens"] for answer in (first, second)]
    assert tokens[1] - tokens[0] == 6  # "<s> q </s></s> new </s>": what is kept counts as ever


def test_all_that_is_kept_is_answered_when_the_queue_is_full_and_the_model_busy() -> None:
    gate = Gate()
    gate.opened.set()
    with (
        serving_cached(FaultyBackend(gate), scheduler={"max_queued_tokens": 40}) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        before = server.rerank("q", DOCUMENTS).json()
        gate.opened.clear()
        running = pool.submit(server.rerank, "q", ["word " * 30])
        until(lambda: server.metric("tamis_queue_tokens") == 35)
        refused = server.rerank("q", ["another"])
        kept = server.rerank("q", DOCUMENTS)
        gate.opened.set()
        assert refused.status_code == 429
        assert kept.json()["results"] == before["results"]
        assert running.result().status_code == 200


def test_an_urgent_request_does_not_wait_for_a_later_one_that_has_the_same_pair() -> None:
    gate = Gate()
    backend = FaultyBackend(gate)
    with serving_cached(backend) as server, ThreadPoolExecutor(3) as pool:
        running = pool.submit(server.rerank, "q", ["first"])
        assert gate.reached.wait(60)
        n_tokens = server.metric("tamis_queue_tokens")
        later = pool.submit(server.rerank, "q", ["a bear", "another"], priority=900)
        until(lambda: server.metric("tamis_queue_tokens") > n_tokens)
        n_tokens = server.metric("tamis_queue_tokens")
        urgent = pool.submit(server.rerank, "q", ["a bear"])
        until(lambda: server.metric("tamis_queue_tokens") > n_tokens)
        gate.opened.set()
        for answer, texts in ((running, ["first"]), (later, ["a bear", "another"])):
            assert logits_of(answer.result().json()) == alone("q", texts)
        assert logits_of(urgent.result().json()) == alone("q", ["a bear"])
        assert server.rerank("q", ["a bear"]).json()["usage"]["cached_pairs"] == 1


@pytest.mark.parametrize(
    ("fields", "headers", "n_computed"),
    [
        ({}, {}, 0),
        ({"cache": True}, {"cache-control": "max-age=60"}, 0),
        ({"cache": False}, {}, 3),
        ({}, {"cache-control": "no-store"}, 3),
        ({}, {"Cache-Control": "Private, No-Cache"}, 3),
        ({}, {"cache-control": "max-age=0"}, 3),
        ({}, [("cache-control", "max-age=60"), ("cache-control", "no-cache")], 3),
    ],
)
def test_a_caller_may_want_no_kept_score(
    server: Served,
    backend: FaultyBackend,
    fields: dict[str, Any],
    headers: dict[str, str] | list[tuple[str, str]],
    n_computed: int,
) -> None:
    server.rerank("q", DOCUMENTS)
    n_before = n_scored(backend)

    body = {"query": "q", "documents": DOCUMENTS} | fields
    answer = server.client.post("/rerank", json=body, headers=headers).json()

    assert n_scored(backend) - n_before == n_computed
    assert answer["usage"]["cached_pairs"] == 3 - n_computed


def test_what_was_cut_is_no_answer_to_who_wants_nothing_cut(
    server: Served, backend: FaultyBackend
) -> None:
    long = ["word " * 600]
    assert server.rerank("q", long).json()["usage"]["truncated_documents"] == 1

    kept = server.rerank("q", long).json()["usage"]
    refused = server.rerank("q", long, truncate=False)

    assert (kept["cached_pairs"], kept["truncated_documents"]) == (1, 1)
    assert (refused.status_code, refused.json()["code"]) == (422, "text_too_long")


def test_the_openai_like_dialect_says_what_was_kept_too(server: Served) -> None:
    usages = [server.rerank("q", DOCUMENTS, model="any").json()["usage"] for _ in range(2)]

    assert "cached_pairs" not in usages[0]
    assert usages[1]["cached_pairs"] == 3


def test_a_cascade_keeps_both_stages_scores() -> None:
    backend = FaultyBackend()
    options = Settings.model_validate({"cascade": {"keep": 2}, "model": {"name": "dear"}})
    with serving(options, load=lambda asked: named(model_on(backend), asked.name)) as server:
        first = server.rerank("q", DOCUMENTS).json()
        n_before = n_scored(backend)
        second = server.rerank("q", DOCUMENTS).json()

    assert n_scored(backend) == n_before == 5
    assert second["results"] == first["results"]
    assert (first["usage"]["cached_pairs"], second["usage"]["cached_pairs"]) == (0, 3)
