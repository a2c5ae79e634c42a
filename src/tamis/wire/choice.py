"""Which dialect a body speaks: three share one path."""

from typing import Any

import msgspec

from tamis.errors import MalformedBodyError
from tamis.wire.dialect import Dialect, RawBody
from tamis.wire.jina import Jina
from tamis.wire.native import Native
from tamis.wire.tei import Tei


def parse_object(data: bytes) -> RawBody:
    """A JSON object from a request's bytes, read strictly.

    Raises:
        MalformedBodyError: it is not UTF-8, not JSON, too deep, or not an object.
    """
    try:
        body: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBodyError(f"the body is not valid JSON in UTF-8: {error}") from None
    if not isinstance(body, dict):
        raise MalformedBodyError("the body must be a JSON object")
    return body


def choose_dialect(body: RawBody) -> Dialect:
    """`texts` is TEI's, `documents` with a `model` is Jina's, anything else our own."""
    if body.get("texts") is not None or ("texts" in body and "documents" not in body):
        return Tei()
    return Jina() if body.get("model") is not None else Native()
