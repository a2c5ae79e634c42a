"""Fields by the names that people give them: understood, or named in a warning."""

import json
from typing import Any

import msgspec
import pytest

from tamis.errors import InvalidFieldError
from tamis.types import RankedDocument, RerankResult, Usage
from tamis.wire import jina, native, tei
from tamis.wire.dialect import QUERY_TRUNCATED, Call, Dialect, warnings_of
from tamis.wire.jina import JINA
from tamis.wire.native import NATIVE
from tamis.wire.registry import DIALECTS
from tamis.wire.tei import TEI
from tests.unit.wire.bodies import body_of, decode, decoded

each_dialect = pytest.mark.parametrize(
    "dialect", DIALECTS.dialects, ids=lambda dialect: dialect.name
)


def encoded(call: Call, *, query_truncated: bool = False) -> Any:
    """An answer with one document."""
    ranked = RankedDocument(0, "a", 2.0, 0.88, query_truncated=query_truncated)
    usage = Usage(1, 9, 0, query_truncated=query_truncated)
    return json.loads(msgspec.json.encode(call.encode(RerankResult("m", (ranked,), usage), "id")))


@each_dialect
@pytest.mark.parametrize(
    "name", ["top_n", "top_k", "topn", "top-n", "topN", "TOP_N", "topK", "k", "Top N"]
)
def test_every_spelling_of_top_n_is_understood(dialect: Dialect, name: str) -> None:
    call = decode(dialect, body_of(dialect) | {name: 1})
    assert (call.request.top_n, call.warnings) == (1, ())


@each_dialect
@pytest.mark.parametrize("name", ["return_text", "return_docs", "return_documents", "returnText"])
@pytest.mark.parametrize("value", [True, False])
def test_every_spelling_of_return_documents_is_understood(
    dialect: Dialect, name: str, value: bool
) -> None:
    call = decode(dialect, body_of(dialect) | {name: value})
    answer = encoded(call)
    first = answer[0] if isinstance(answer, list) else answer["results"][0]
    assert ("text" in first or "document" in first) is value
    assert call.warnings == ()


@pytest.mark.parametrize("name", ["passages", "docs", "Documents", "inputs", "candidates"])
@pytest.mark.parametrize("model", [{}, {"model": "m"}])
def test_documents_by_another_name_are_documents(name: str, model: dict[str, str]) -> None:
    body = {"query": "q", name: ["a", {"text": "b"}]} | model
    call = decoded(body)
    assert call.request.texts() == ["a", "b"]
    assert call.warnings == ()


def test_documents_twice_are_those_of_the_dialects_own_name() -> None:
    call = native.decode({"query": "q", "documents": ["a"], "passages": ["b"]})
    assert call.request.documents == ("a",)
    assert call.warnings == ("`passages` is ignored: `documents` is there, too",)


@each_dialect
@pytest.mark.parametrize("name", ["threshold", "score_threshold", "scoreThreshold", "min_score"])
def test_a_threshold_is_honoured_in_every_dialect(dialect: Dialect, name: str) -> None:
    call = decode(dialect, body_of(dialect) | {name: 0.5})
    assert (call.request.threshold, call.warnings) == (0.5, ())
    with pytest.raises(InvalidFieldError, match="threshold"):
        decode(dialect, body_of(dialect) | {name: 2})


@each_dialect
@pytest.mark.parametrize("name", ["truncation_side", "truncation_direction", "truncationSide"])
@pytest.mark.parametrize("value", ["left", "Left"])
def test_the_side_that_is_cut_is_honoured_in_every_dialect(
    dialect: Dialect, name: str, value: str
) -> None:
    call = decode(dialect, body_of(dialect) | {name: value})
    assert (call.request.truncation_side, call.warnings) == ("left", ())


@each_dialect
@pytest.mark.parametrize(
    ("fields", "truncate", "side"),
    [
        ({"truncation": False}, False, "right"),
        ({"truncate": "NONE"}, False, "right"),
        ({"truncate": "END"}, True, "right"),
    ],
    ids=str,
)
def test_truncation_is_what_other_servers_call_it(
    dialect: Dialect, fields: dict[str, Any], truncate: bool, side: str
) -> None:
    request = decode(dialect, body_of(dialect) | fields).request
    assert (request.truncate, request.truncation_side) == (truncate, side)


@each_dialect
def test_start_cuts_the_left_end(dialect: Dialect) -> None:
    request = decode(dialect, body_of(dialect) | {"truncate": "START"}).request
    assert (request.truncate, request.truncation_side) == (True, "left")


@each_dialect
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_length", 128, "model.max_length"),
        ("max_tokens", 128, "model.max_length"),
        ("truncate_prompt_tokens", 64, "model.max_length"),
        ("max_chunks_per_doc", 3, "cut"),
        ("return_documetns", True, "did you mean"),
        ("treshold", 0.5, "did you mean `threshold`"),
        ("timout", 5, "no such field"),
        ("boost", {"a": 1}, "no such field"),
    ],
)
def test_what_changes_nothing_is_named_in_a_warning(
    dialect: Dialect, name: str, value: object, words: str
) -> None:
    (warning,) = decode(dialect, body_of(dialect) | {name: value}).warnings
    assert warning.startswith(f"`{name}` is ignored: ")
    assert words in warning


@each_dialect
@pytest.mark.parametrize(
    "fields",
    [
        {"max_length": None, "kwargs": "{}", "rank_fields": [], "user": "u", "unknown": ""},
        {"truncate_prompt_tokens": -1, "max_tokens_per_doc": 0},
    ],
    ids=str,
)
def test_what_asks_for_nothing_gets_no_warning(dialect: Dialect, fields: dict[str, Any]) -> None:
    assert decode(dialect, body_of(dialect) | fields).warnings == ()


@each_dialect
@pytest.mark.parametrize("name", ["a\r\nset-cookie: x", "x" * 5_000, "é", "<script>", " ", "\x1b["])
def test_an_odd_name_is_not_repeated(dialect: Dialect, name: str) -> None:
    (warning,) = decode(dialect, body_of(dialect) | {name: 1}).warnings
    assert warning.startswith("a field with an odd name is ignored")
    assert warning.isascii()


@each_dialect
def test_warnings_are_few_however_many_fields_there_are(dialect: Dialect) -> None:
    warnings = decode(dialect, body_of(dialect) | {f"f{n}": n for n in range(50_000)}).warnings
    assert len(warnings) == 9
    assert "more fields" in warnings[-1]


def test_native_has_warnings_in_the_answer_and_only_where_there_are_any() -> None:
    assert "warnings" not in encoded(native.decode(body_of(NATIVE)))
    answer = encoded(native.decode(body_of(NATIVE, max_length=5)))
    assert answer["warnings"][0].startswith("`max_length` is ignored")


def test_jinas_answer_has_them_where_coheres_has() -> None:
    assert "meta" not in encoded(jina.decode(body_of(JINA)))
    answer = encoded(jina.decode(body_of(JINA, max_length=5)))
    assert answer["meta"]["warnings"][0].startswith("`max_length` is ignored")


def test_a_query_that_was_cut_is_told_apart_from_documents() -> None:
    own = encoded(native.decode(body_of(NATIVE)), query_truncated=True)
    assert own["warnings"] == [QUERY_TRUNCATED]
    assert own["usage"]["query_truncated"] is True
    assert own["usage"]["truncated_documents"] == 0
    assert own["results"][0]["query_truncated"] is True
    assert "truncated" not in own["results"][0]
    jinas = encoded(jina.decode(body_of(JINA)), query_truncated=True)
    assert jinas["meta"]["warnings"] == [QUERY_TRUNCATED]
    result = RerankResult("m", (), Usage(1, 9, 0, query_truncated=True))
    assert warnings_of(tei.decode(body_of(TEI)).warnings, result) == [QUERY_TRUNCATED]


@pytest.mark.parametrize("value", ["middle", "LEFT "])
def test_an_error_names_the_values_that_a_field_may_have(value: str) -> None:
    for dialect, name in ((TEI, "truncation_direction"), (JINA, "truncation_side")):
        with pytest.raises(InvalidFieldError, match="Expected one of `left`, `Left`, `right`"):
            decode(dialect, body_of(dialect) | {name: value})
