"""What clients send and what they get, byte for byte: one JSON file an exchange."""

import json
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np
import pytest

from tamis import errors
from tamis.errors import TamisError
from tamis.ranking import rank
from tamis.server.errors import status_of
from tamis.types import RankedDocument, RerankRequest, RerankResult, Usage
from tamis.wire.dialect import Failure
from tamis.wire.parsing import parse_object
from tests.unit.wire.bodies import decode, spoken

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
LOGITS = (-1.5, 2.0, 0.25, -8.0)
REQUEST_ID = "request-1"


class Exchange(TypedDict):
    """A file of `golden/`; `raises` names the error that answers a request without fault."""

    client: str
    dialect: str
    request: dict[str, Any]
    raises: str | None
    status: int
    answer: Any


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_a_recorded_request_gets_the_recorded_answer(path: Path) -> None:
    exchange: Exchange = json.loads(path.read_text(encoding="utf-8"))
    answered = answer(exchange["request"], raises=exchange["raises"])
    expected = (exchange["dialect"], exchange["status"], exchange["answer"])
    assert rounded(answered) == rounded(expected)


def answer(request: dict[str, Any], *, raises: str | None) -> tuple[str, int, Any]:
    """Dialect, status and body, as the route makes them, with `LOGITS` for a model."""
    body = parse_object(json.dumps(request).encode())
    dialect = spoken(body)
    try:
        call = decode(dialect, body)
        if raises is not None:
            raise getattr(errors, raises)("what is wrong")
        encoded, status = call.encode(scored(call.request), REQUEST_ID), 200
    except TamisError as error:
        status, encoded = dialect.encode_error(Failure(error, status_of(error), REQUEST_ID))
    return dialect.name, status, json.loads(msgspec.json.encode(encoded))


def scored(request: RerankRequest) -> RerankResult:
    n_pairs = len(request.documents)
    logits = np.array(LOGITS[:n_pairs], dtype=np.float32)
    places = rank(logits, top_n=request.top_n, threshold=request.threshold)
    results = tuple(
        RankedDocument(index, request.documents[index], float(logits[index]), score)
        for index, score in places
    )
    return RerankResult("tamis-mini", results, Usage(n_pairs, n_tokens=10 * n_pairs, n_truncated=1))


def rounded(value: Any) -> Any:
    """The value with its floats to nine digits: machines differ in the last bit of `exp`."""
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
