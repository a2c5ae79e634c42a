"""Bodies that every dialect gets in tests, and how they are read."""

from typing import Any

from tamis.wire.dialect import Call, Dialect, RawBody, RerankEndpoint
from tamis.wire.registry import DIALECTS


def body_of(dialect: Dialect, **fields: Any) -> dict[str, Any]:
    """A good body with two documents; `documents` stands for TEI's `texts`, too."""
    body: dict[str, Any] = {"query": "q", "documents": ["a", "b"]} | fields
    if dialect.name == "jina":
        return {"model": "m"} | body
    if dialect.name == "tei":
        body["texts"] = body.pop("documents")
    return body


def decode(dialect: Dialect, body: RawBody) -> Call:
    """A body of `POST /rerank`, read as one of a dialect's."""
    endpoint = next(one for one in dialect.endpoints if "/rerank" in one.paths)
    assert isinstance(endpoint, RerankEndpoint)
    return endpoint.decode(body)


def decoded(body: RawBody) -> Call:
    """A body of `POST /rerank`, read in the dialect that it speaks."""
    return decode(spoken(body), body)


def spoken(body: RawBody) -> Dialect:
    """The dialect of a body of `POST /rerank`."""
    dialect, _ = DIALECTS.choose("/rerank", "POST", body)
    return dialect
