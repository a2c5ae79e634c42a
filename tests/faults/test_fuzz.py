"""The body's way into the server, fuzzed: no crash, and no status that the API does not name."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tamis.errors import TamisError
from tamis.server.endpoints.documentation import openapi_document
from tamis.server.errors import status_of
from tamis.wire.dialect import EncodeError, Failure
from tamis.wire.parsing import parse_object
from tamis.wire.registry import DIALECTS
from tests.integration.serving import Served
from tests.unit.wire.bodies import decode, spoken

DOCUMENTED = {int(status) for status in openapi_document()["paths"]["/rerank"]["post"]["responses"]}
CALLERS_FAULT = {400, 413, 415, 422}

FIELDS = [
    *("query", "documents", "texts", "model", "top_n", "threshold", "return_documents"),
    *("truncate", "raw_scores", "return_text", "truncation_direction", "priority", "timeout_ms"),
    *("partial", "text", "more"),
]
ANYTHING = st.text(st.characters(codec=None), max_size=8)
"""Text with lone surrogates, which `json` writes as escapes."""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANYTHING
    | st.sampled_from(["true", "3", "", "left", "Right", "a bear"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | ANYTHING, inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={name: JSON | st.lists(ANYTHING, max_size=3) | ANYTHING for name in FIELDS},
)
VALID = [
    b'{"query": "a panda", "documents": ["a bear", {"text": "paris"}], "top_n": 1}',
    b'{"query": "a panda", "documents": ["a bear"], "model": "m", "return_documents": true}',
    b'{"query": "a panda", "texts": ["a bear"], "truncation_direction": "Left"}',
]


@st.composite
def mutated(draw: Callable[..., Any]) -> bytes:
    """A valid body with some bytes cut out, put in, doubled or changed."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        piece = draw(
            st.binary(max_size=4)
            | st.sampled_from(
                [b"[" * 40, b'"', b"\\ud800", b"NaN", b"1e999", b"\0", b"\xff", b"null"]
            )
            | st.just(bytes(data[start:end]) * 2)
        )
        data[start:end] = piece
    return bytes(data)


def written(body: dict[str, Any]) -> bytes:
    """As `json` writes it: NaN, infinities and lone surrogates too."""
    return json.dumps(body).encode()


RAW = st.binary(max_size=200) | mutated() | BODIES.map(written)


def require_callers_fault(encode_error: EncodeError, error: TamisError) -> None:
    """It has a status that says so, and a body that can be written."""
    status, answer = encode_error(Failure(error, status_of(error), "id"))
    assert status in CALLERS_FAULT
    assert msgspec.json.encode(answer)


@settings(max_examples=6 * settings().max_examples)
@given(RAW)
@example(b"[" * 200_000)
@example(b'{"a":' * 200_000)
@example(b'{"query": "q", "documents": [' + b"9" * 5000 + b"]}")
def test_no_body_crashes_the_parser(data: bytes) -> None:
    try:
        body = parse_object(data)
        dialect = spoken(body)
    except TamisError as error:
        require_callers_fault(partial(DIALECTS.encode_error, "/rerank"), error)
        return
    try:
        request = decode(dialect, body).request
        texts = request.texts()
    except TamisError as error:
        require_callers_fault(dialect.encode_error, error)
        return
    assert request.query.strip()
    assert len(texts) == len(request.documents) > 0
    assert all(isinstance(text, str) for text in texts)


@given(RAW)
def test_no_body_gets_a_status_that_the_api_does_not_name(served: Served, data: bytes) -> None:
    response = served.client.post("/rerank", content=data)
    assert response.status_code in DOCUMENTED - {500, 424, 503, 504, 507}
    answer = json.loads(response.content, parse_constant=pytest.fail)
    if response.status_code != 200:
        assert answer["error"]
