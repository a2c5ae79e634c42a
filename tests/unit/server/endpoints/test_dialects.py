"""A dialect of several endpoints, one of them without a body, is served by what it declares."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import ClassVar

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from tamis.assembly.assembly import Assembly
from tamis.errors import InvalidFieldError
from tamis.observability.metrics import Metrics
from tamis.server.answers import json_answer
from tamis.server.body import BodyRoom
from tamis.server.context import ServerContext
from tamis.server.endpoints.dialects import OPERATIONS, dialect_routes
from tamis.server.endpoints.documentation import openapi_document
from tamis.server.lifespan import ModelLife
from tamis.server.middleware.keys import KeyMiddleware
from tamis.server.middleware.requests import RequestMiddleware
from tamis.settings import Settings
from tamis.sharing import FairThread
from tamis.wire import native
from tamis.wire.dialect import Dialect, Endpoint, Failure, RawBody, RerankEndpoint
from tamis.wire.registry import Registry


class CountAnswer(msgspec.Struct):
    """How many fields a body has."""

    count: int


class ParrotError(msgspec.Struct):
    """What the dialect says of an error."""

    squawk: str


class CountEndpoint(Endpoint):
    """Asks for a number."""

    tag: ClassVar[str] = "count"
    summary: ClassVar[str] = "Count the fields of a body."
    answered: ClassVar[str] = "How many."
    example: ClassVar[object] = {"a": 1}


@dataclass(frozen=True, slots=True)
class Counting:
    """A body to count."""

    body: RawBody
    n_held_bytes: int = 0

    @classmethod
    def decode(cls, _request: Request, _endpoint: CountEndpoint, body: RawBody) -> "Counting":
        """Read it."""
        if "bad" in body:
            raise InvalidFieldError("bad")
        return cls(body)

    async def answer(self) -> Response:
        """Count."""
        return json_answer(CountAnswer(len(self.body)))


def squawk(failure: Failure) -> tuple[int, object]:
    """An error, as parrots tell it."""
    return failure.status, ParrotError(str(failure.error))


PARROT = Dialect(
    "parrot",
    endpoints=(
        RerankEndpoint(
            paths=("/parrot/rerank",),
            request=native.NativeRequest,
            answer=native.NativeAnswer,
            decode=native.decode,
        ),
        CountEndpoint(method="GET", paths=("/parrot/info",), answer=CountAnswer),
        CountEndpoint(
            paths=("/parrot/count", "/rerank"),
            sign="`count` is a parrot's",
            recognizes=lambda body: "count" in body,
            request=dict[str, int],
            answer=CountAnswer,
        ),
    ),
    error=ParrotError,
    encode_error=squawk,
)
DIALECTS = Registry(native.NATIVE, PARROT)


@pytest.fixture
async def client() -> AsyncGenerator[httpx2.AsyncClient]:
    """Of a server that has one dialect more."""
    settings, metrics = Settings(), Metrics()
    app = Starlette(
        routes=dialect_routes(DIALECTS, {**OPERATIONS, CountEndpoint: Counting.decode}),
        middleware=[
            Middleware(RequestMiddleware, metrics=metrics),
            Middleware(KeyMiddleware, keys=None, open_paths=frozenset()),
        ],
    )
    assembly = Assembly(settings, metrics)
    life, bodies = ModelLife(assembly, metrics), BodyRoom(2**20)
    parsing = FairThread("parser")
    app.state.context = ServerContext(settings, metrics, life, bodies, parsing, assembly.watch)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://tamis") as client:
        yield client
    await parsing.close()


async def test_each_endpoint_answers_at_its_paths(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/parrot/info")).json() == {"count": 0}
    assert (await client.head("/parrot/info")).status_code == 200
    assert (await client.post("/parrot/count", json={"a": 1, "b": 2})).json() == {"count": 2}
    assert (await client.post("/rerank", json={"count": 1})).json() == {"count": 1}
    assert (await client.post("/parrot/count")).status_code == 400


async def test_each_error_is_in_the_dialects_words(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/parrot/count", json={"bad": 1})
    assert (answer.status_code, answer.json()) == (422, {"squawk": "bad"})
    answer = await client.post("/parrot/rerank", json={"query": "q", "documents": ["a"]})
    assert (answer.status_code, set(answer.json())) == (503, {"squawk"})
    answer = await client.post("/parrot/rerank", content=b"{")
    assert (answer.status_code, set(answer.json())) == (400, {"squawk"})
    answer = await client.post("/rerank", content=b"{")
    assert set(answer.json()) == {"squawk", "error", "code", "request_id"}


def test_the_description_asks_each_dialect() -> None:
    document = openapi_document(DIALECTS)
    assert {path: set(found) for path, found in document["paths"].items() if "v1" not in path} == {
        "/rerank": {"post"},
        "/parrot/rerank": {"post"},
        "/parrot/info": {"get"},
        "/parrot/count": {"post"},
        **{path: {"get"} for path in ("/livez", "/readyz", "/metrics")},
    }
    assert "requestBody" not in document["paths"]["/parrot/info"]["get"]
    assert document["paths"]["/parrot/count"]["post"]["tags"] == ["count"]
    shared = document["paths"]["/rerank"]["post"]
    assert shared["description"].endswith("tamis's own, `count` is a parrot's.")
    assert len(shared["requestBody"]["content"]["application/json"]["schema"]["anyOf"]) == 2
    assert "ParrotError" in document["components"]["schemas"]
