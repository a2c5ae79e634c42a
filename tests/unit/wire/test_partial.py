"""Terms of a request (priority, time, a part) and answers with less in them than was asked for."""

import json
from typing import Any

import msgspec
import pytest

from tamis.errors import InvalidFieldError
from tamis.types import RankedDocument, RerankResult, UnscoredDocument, Usage
from tests.unit.wire.bodies import decoded

NATIVE: dict[str, Any] = {"query": "q", "documents": ["a", "b"]}
JINA = NATIVE | {"model": "m"}
PART = RerankResult(
    model="m",
    results=(RankedDocument(1, "b", 2.0, 0.88),),
    usage=Usage(n_pairs=2, n_tokens=9, n_truncated=0),
    unscored=(UnscoredDocument(0, "a", "deadline_exceeded", "the time was over"),),
    degraded=True,
)
WHOLE = RerankResult(
    model="m",
    results=(RankedDocument(1, "b", 2.0, 0.88), RankedDocument(0, "a", 1.0, 0.73)),
    usage=Usage(n_pairs=2, n_tokens=9, n_truncated=0),
)
REASON = {"code": "deadline_exceeded", "message": "the time was over"}


def encoded(body: dict[str, Any], result: RerankResult) -> Any:
    """The answer to a body."""
    call = decoded(body)
    return json.loads(msgspec.json.encode(call.encode(result, "id")))


@pytest.mark.parametrize("body", [NATIVE, JINA], ids=["native", "jina"])
def test_a_request_says_on_what_terms_it_is_answered(body: dict[str, Any]) -> None:
    asked = body | {"priority": 5, "timeout_ms": 1500, "partial": True}

    request = decoded(asked).request
    plain = decoded(body).request

    assert (request.priority, request.timeout_seconds, request.partial) == (5, 1.5, True)
    assert (plain.priority, plain.timeout_seconds, plain.partial) == (0, None, False)


@pytest.mark.parametrize("body", [NATIVE, JINA], ids=["native", "jina"])
@pytest.mark.parametrize(
    "terms",
    [{"priority": -1}, {"priority": 1000}, {"timeout_ms": 0}, {"timeout_ms": "soon"}],
    ids=str,
)
def test_terms_that_cannot_be_are_refused(body: dict[str, Any], terms: dict[str, Any]) -> None:
    asked = body | terms

    with pytest.raises(InvalidFieldError, match=next(iter(terms))):
        decoded(asked)


def test_native_puts_documents_without_a_score_last_with_nulls_and_a_reason() -> None:
    answer = encoded(NATIVE, PART)

    assert answer["degraded"] is True
    assert answer["results"] == [
        {"index": 1, "logit": 2.0, "score": 2.0, "relevance_score": 0.88, "document": "b"},
        {
            "index": 0,
            "logit": None,
            "score": None,
            "relevance_score": None,
            "document": "a",
            "error": REASON,
        },
    ]


def test_jinas_clients_get_a_number_for_a_document_without_a_score() -> None:
    answer = encoded(JINA, PART)

    assert answer["degraded"] is True
    assert answer["results"] == [
        {"index": 1, "relevance_score": 0.88},
        {"index": 0, "relevance_score": 0.0, "error": REASON},
    ]


@pytest.mark.parametrize("body", [NATIVE, JINA], ids=["native", "jina"])
def test_a_whole_answer_says_nothing_of_parts(body: dict[str, Any]) -> None:
    answer = encoded(body, WHOLE)

    assert "degraded" not in answer
    assert all("error" not in result for result in answer["results"])
