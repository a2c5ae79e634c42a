"""Bodies that every dialect gets in tests."""

from typing import Any

from tamis.wire.dialect import Dialect
from tamis.wire.jina import Jina
from tamis.wire.native import Native
from tamis.wire.tei import Tei

DIALECTS: tuple[Dialect, ...] = (Native(), Jina(), Tei())


def body_of(dialect: Dialect, **fields: Any) -> dict[str, Any]:
    """A good body with two documents; `documents` stands for TEI's `texts`, too."""
    body: dict[str, Any] = {"query": "q", "documents": ["a", "b"]} | fields
    if dialect.name == "jina":
        return {"model": "m"} | body
    if dialect.name == "tei":
        body["texts"] = body.pop("documents")
    return body
