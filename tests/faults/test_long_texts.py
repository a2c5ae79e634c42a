"""Texts that are too long are cut and said to be, or settled alone; others are answered."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.serving import Served, serving_fake

FIELDS: dict[str, dict[str, Any]] = {
    "native": {},
    "native, truncate": {"truncate": True},
    "native, partial": {"partial": True},
    "jina": {"model": "m"},
    "tei": {"truncate": True},
}


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    """A server with a small limit."""
    with serving_fake(limits={"max_document_characters": 1_000}) as server:
        yield server


def asked(name: str, documents: list[Any]) -> dict[str, Any]:
    return {"query": "q", "texts" if name == "tei" else "documents": documents} | FIELDS[name]


@pytest.mark.parametrize("name", FIELDS)
def test_row_22_a_document_over_its_limit_is_cut_where_it_may_be(plain: Served, name: str) -> None:
    answer = plain.client.post("/rerank", json=asked(name, ["ok", "x y " * 250 + "beyond"]))
    as_cut = plain.client.post("/rerank", json=asked(name, ["ok", "x y " * 250]))
    assert answer.status_code == as_cut.status_code == 200
    if name.startswith("native"):
        body = answer.json()
        assert body["usage"]["truncated_documents"] == 1
        cut = {result["index"]: result.get("truncated", False) for result in body["results"]}
        assert cut == {0: False, 1: True}
        assert [one["logit"] for one in body["results"]] == [
            one["logit"] for one in as_cut.json()["results"]
        ]


def test_a_document_that_was_cut_comes_back_whole(plain: Served) -> None:
    document = {"text": "long " * 1_000, "id": 7}
    (result,) = plain.rerank("q", [document]).json()["results"]
    assert result["document"] == document


def test_the_left_end_is_cut_by_characters_too(plain: Served) -> None:
    text = "beyond " + "x y " * 250
    (cut,) = plain.rerank("q", [text], truncation_side="left").json()["results"]
    (whole,) = plain.rerank("q", ["x y " * 250]).json()["results"]
    assert cut["logit"] == whole["logit"]


@pytest.mark.parametrize(
    ("long", "code"),
    [("x " * 5_000, "too_many_characters"), ("x " * 500, "text_too_long")],
    ids=["characters", "tokens"],
)
@pytest.mark.parametrize("model", [{}, {"model": "m"}], ids=["native", "jina"])
def test_a_part_of_an_answer_settles_a_long_document_alone(
    long: str, code: str, model: dict[str, str]
) -> None:
    with serving_fake(limits={"max_document_characters": 2_000}) as server:
        long = long if code == "too_many_characters" else "x " * 999
        terms = {"partial": True, "truncate": False} | model
        answer = server.rerank("q", ["a", long, "b"], **terms)
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert answer.json()["degraded"] is True
        assert sorted(one["index"] for one in results[:2]) == [0, 2]
        assert (results[2]["index"], results[2]["error"]["code"]) == (1, code)
        alone = server.rerank("q", [long], **terms)
        assert alone.status_code == 200
        assert alone.json()["results"][0]["error"]["code"] == code
        whole = server.rerank("q", ["a", long, "b"], **(terms | {"partial": False}))
        assert (whole.status_code, "document 1" in whole.text) == (422, True)


def test_a_query_that_is_cut_is_no_document_that_is(plain: Served) -> None:
    answer = plain.rerank("q " * 400, ["a", "b"])
    body = answer.json()
    assert body["usage"]["truncated_documents"] == 0
    assert body["usage"]["query_truncated"] is True
    assert [one["query_truncated"] for one in body["results"]] == [True, True]
    assert not any("truncated" in one for one in body["results"])
    assert body["warnings"][0].startswith("query_truncated")
    assert answer.headers["x-tamis-warnings"].startswith("query_truncated")


@pytest.mark.parametrize("fields", [{"documents": ["a"], "model": "m"}, {"texts": ["a"]}])
def test_every_dialect_says_that_the_query_was_cut(plain: Served, fields: dict[str, Any]) -> None:
    answer = plain.client.post("/rerank", json={"query": "q " * 400} | fields)
    assert answer.headers["x-tamis-warnings"].startswith("query_truncated")
    assert ("query_truncated" in answer.text) is ("model" in fields)


def test_a_kept_score_still_knows_that_its_query_was_cut() -> None:
    with serving_fake(cache={"memory_bytes": 2**20}) as server:
        answers = [server.rerank("q " * 400, ["a"]).json() for _ in range(2)]
        assert answers[1]["usage"]["cached_pairs"] == 1
        assert [one["usage"]["query_truncated"] for one in answers] == [True, True]
        refused = server.rerank("q " * 400, ["a"], truncate=False)
        assert (refused.status_code, refused.json()["code"]) == (422, "text_too_long")
        assert refused.json()["error"].startswith("the query has more tokens")


def test_a_cascade_says_what_each_model_has_cut() -> None:
    with serving_fake(cascade={"keep": 1}) as server:
        body = server.rerank("q " * 400, ["a", "b", "x " * 600]).json()
        assert body["usage"]["query_truncated"] is True
        assert body["usage"]["truncated_documents"] == 1


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b'{"query":"q","documents":["cut emoji \\ud83d"]}', 37),
        (b'{"query":"q","documents":["a\\ud83d"]}', 28),
        (b'{"query":"q","documents":["a\\ud83d more"]}', 28),
        (b'{"query":"q","documents":["a\\ude00"]}', 28),
        (b'{"query":"q","documents":["\\ud83d\\ud83d\\ude00"]}', 27),
        (b'{"query":"q","documents":["\\\\\\uDC00"]}', 29),
        (b'{"query":"q","documents":["\xed\xa0\xbd"]}', 27),
    ],
)
def test_row_20_a_lone_surrogate_is_called_one(plain: Served, data: bytes, at: int) -> None:
    answer = plain.client.post(
        "/rerank", content=data, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    assert f"lone surrogate, half of a character, at byte {at};" in answer.json()["error"]


@pytest.mark.parametrize(
    "data", [b'{"query":"q","documents":["\\ud83d\\ude00"], x}', b'{"a":"\\\\ud83d']
)
def test_another_fault_is_not_called_a_surrogate(plain: Served, data: bytes) -> None:
    assert "surrogate" not in plain.client.post("/rerank", content=data).json()["error"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"request_id": "canary", "index": 0, "event": "canary"}, "one of `used`, `clicked`"),
        ({"request_id": "known", "index": 987_654, "event": "used"}, "from 0 to 1"),
        ({"request_id": "known", "index": [0] * 987, "event": "used"}, "it had 2"),
    ],
)
def test_feedback_names_what_it_takes_and_repeats_nothing(
    plain: Served, said: dict[str, Any], words: str
) -> None:
    body = {"query": "q", "documents": ["a", "b"]}
    plain.client.post("/rerank", json=body, headers={"x-request-id": "known"})
    answer = plain.client.post("/v1/feedback", json=said)
    assert answer.status_code == 422
    assert words in answer.json()["error"]
    assert "canary" not in answer.text
    assert "987" not in answer.text
