"""What holds in every dialect."""

from typing import Any

import msgspec
import pytest

from tamis.errors import InvalidFieldError, MalformedBodyError, MissingFieldError, RequestError
from tamis.wire.dialect import Dialect, peek
from tamis.wire.registry import DIALECTS
from tests.unit.wire.bodies import body_of, decode

CANARY = "canary-7f3a"

each_dialect = pytest.mark.parametrize(
    "dialect", DIALECTS.dialects, ids=lambda dialect: dialect.name
)


@each_dialect
@pytest.mark.parametrize("field", ["query", "documents"])
@pytest.mark.parametrize("value", [None, "", "  \n", []])
def test_an_absent_or_empty_field_is_missing(dialect: Dialect, field: str, value: Any) -> None:
    named = "texts" if (dialect.name, field) == ("tei", "documents") else field
    with pytest.raises(MissingFieldError, match=f"Missing or empty `{named}`"):
        decode(dialect, body_of(dialect, **{field: value}))


@each_dialect
@pytest.mark.parametrize(
    "fields",
    [
        {"query": 5},
        {"query": [CANARY]},
        {"query": {CANARY: CANARY}},
        {"documents": CANARY},
        {"documents": {CANARY: CANARY}},
        {"documents": ["a", 3]},
        {"documents": ["a", None]},
        {"documents": [[CANARY]]},
        {"top_n": -1},
        {"top_n": 1.5},
        {"top_n": CANARY},
        {"top_n": [CANARY]},
        {"top_n": True},
    ],
    ids=str,
)
def test_a_field_of_a_wrong_type_is_refused_by_name(
    dialect: Dialect, fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        decode(dialect, body_of(dialect, **fields))
    field = next(iter(fields))
    assert str(caught.value).startswith(
        "`texts" if (dialect.name, field) == ("tei", "documents") else f"`{field}"
    )


@pytest.mark.parametrize(
    "value", [CANARY, [CANARY], {CANARY: CANARY}, f"{CANARY} - at `$.{CANARY}"]
)
@pytest.mark.parametrize(
    "field",
    [
        *("query", "documents", "model", "top_n", "threshold", "return_documents", "truncate"),
        *("raw_scores", "return_text", "truncation_direction"),
    ],
)
@each_dialect
def test_an_error_never_repeats_text_of_the_caller(
    dialect: Dialect, field: str, value: Any
) -> None:
    try:
        decode(dialect, body_of(dialect, **{field: value}))
    except RequestError as error:
        assert CANARY not in str(error)  # noqa: PT017 - some of these are no errors, and may be


@each_dialect
@pytest.mark.parametrize(
    ("top_n", "asked"), [(None, None), (0, None), (1, 1), (2, 2), (99, 99), ("3", 3), (2.0, 2)]
)
def test_top_n_of_zero_or_null_means_all(dialect: Dialect, top_n: Any, asked: int | None) -> None:
    assert decode(dialect, body_of(dialect, top_n=top_n)).request.top_n == asked


@each_dialect
def test_without_options_all_documents_come_back_and_long_ones_are_cut(dialect: Dialect) -> None:
    request = decode(dialect, body_of(dialect)).request
    assert (request.query, request.documents) == ("q", ("a", "b"))
    assert (request.top_n, request.threshold) == (None, None)
    assert (request.truncate, request.truncation_side) == (True, "right")


@each_dialect
def test_unknown_fields_are_ignored(dialect: Dialect) -> None:
    extras = {"instruction": "x", "kwargs": "{}", "rank_fields": ["text"], "user": None, "": 1}
    assert decode(dialect, body_of(dialect, **extras)).request.query == "q"


@each_dialect
def test_null_is_taken_for_an_option_left_out(dialect: Dialect) -> None:
    names = ("top_n", "threshold", "return_documents", "truncate", "return_text", "raw_scores")
    nulls = dict.fromkeys(names)
    assert decode(dialect, body_of(dialect, **nulls)) == decode(dialect, body_of(dialect))


@each_dialect
def test_an_empty_document_is_a_document(dialect: Dialect) -> None:
    assert decode(dialect, body_of(dialect, documents=["", "b"])).request.documents == ("", "b")


@pytest.mark.parametrize(
    "number", [b"1e999", b"-1e999", b'{"a": 1e400}', b'[{"text": "a", "m": 1e999}]']
)
def test_a_number_out_of_range_inside_of_a_short_value_is_malformed(number: bytes) -> None:
    with pytest.raises(MalformedBodyError, match="a number that is too large"):
        peek(msgspec.Raw(b"[" + number + b"]"))
