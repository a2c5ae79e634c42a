"""The options that dialects have of their own, and what is written for them."""

import json
from typing import Any

import msgspec
import pytest

from tamis.errors import InvalidFieldError
from tamis.types import RankedDocument, RerankResult, Usage
from tamis.wire import native, tei
from tamis.wire.dialect import Dialect
from tamis.wire.jina import JINA
from tamis.wire.native import NATIVE
from tamis.wire.tei import TEI
from tests.unit.wire.bodies import body_of, decode


def first_result(dialect: Dialect, body: dict[str, Any]) -> dict[str, Any]:
    """The first result of the answer to a body, as a client reads it."""
    call = decode(dialect, body)
    ranked = RankedDocument(0, call.request.documents[0], logit=2.0, score=0.9)
    result = RerankResult("tamis-mini", (ranked,), Usage(n_pairs=2, n_tokens=20, n_truncated=0))
    answer = json.loads(msgspec.json.encode(call.encode(result, "request-1")))
    results: list[dict[str, Any]] = answer if isinstance(answer, list) else answer["results"]
    return results[0]


@pytest.mark.parametrize(
    ("dialect", "option", "key", "default"),
    [
        (NATIVE, "return_documents", "document", True),
        (JINA, "return_documents", "document", False),
        (TEI, "return_text", "text", False),
    ],
    ids=["native", "jina", "tei"],
)
@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (True, True),
        ("true", True),
        ("True", True),
        (1, True),
        (False, False),
        ("false", False),
        ("False", False),
        (0, False),
        (None, None),
    ],
    ids=str,
)
def test_a_document_stands_in_a_result_or_its_key_is_left_out(
    dialect: Dialect, option: str, key: str, default: bool, value: object, wanted: bool | None
) -> None:
    result = first_result(dialect, body_of(dialect, **{option: value}))
    assert (key in result) is (default if wanted is None else wanted)
    assert (key in first_result(dialect, body_of(dialect))) is default


@pytest.mark.parametrize("document", ["", "text", {"text": "t", "id": 2**80, "more": [None, {}]}])
def test_native_sends_a_document_back_as_it_was_given(document: Any) -> None:
    assert first_result(NATIVE, body_of(NATIVE, documents=[document]))["document"] == document


@pytest.mark.parametrize("document", ["t", {"text": "t", "id": 7}])
def test_jina_sends_a_document_back_as_an_object_with_its_text_alone(document: Any) -> None:
    body = body_of(JINA, documents=[document], return_documents=True)
    assert first_result(JINA, body)["document"] == {"text": "t"}


def test_native_scores_are_the_logit_and_its_sigmoid_under_the_tutorials_names() -> None:
    result = first_result(NATIVE, body_of(NATIVE))
    assert (result["logit"], result["score"], result["relevance_score"]) == (2.0, 2.0, 0.9)


@pytest.mark.parametrize(("raw_scores", "score"), [(True, 2.0), (False, 0.9), (None, 0.9)])
def test_tei_scores_are_logits_only_when_raw_scores_are_asked_for(
    raw_scores: bool | None, score: float
) -> None:
    assert first_result(TEI, body_of(TEI, raw_scores=raw_scores))["score"] == score


@pytest.mark.parametrize(
    ("direction", "side"),
    [("left", "left"), ("Left", "left"), ("right", "right"), ("Right", "right"), (None, "right")],
)
def test_tei_cuts_the_end_that_is_asked_for(direction: str | None, side: str) -> None:
    call = tei.decode(body_of(TEI, truncation_direction=direction))
    assert call.request.truncation_side == side


@pytest.mark.parametrize("dialect", [NATIVE, TEI], ids=["native", "tei"])
@pytest.mark.parametrize(("truncate", "wanted"), [(False, False), ("false", False), (True, True)])
def test_truncate_false_refuses_long_texts(dialect: Dialect, truncate: Any, wanted: bool) -> None:
    assert decode(dialect, body_of(dialect, truncate=truncate)).request.truncate is wanted


@pytest.mark.parametrize("threshold", [0, 0.5, 1, "0.5"])
def test_native_takes_a_threshold_between_0_and_1(threshold: Any) -> None:
    request = native.decode(body_of(NATIVE, threshold=threshold)).request
    assert request.threshold == float(threshold)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, "high", [0.5]])
def test_native_refuses_any_other_threshold(threshold: Any) -> None:
    with pytest.raises(InvalidFieldError, match="`threshold`: Expected"):
        native.decode(body_of(NATIVE, threshold=threshold))
