"""The OpenAPI document, and Swagger UI to read it in: served from memory, offline."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

import tamis
from tamis.server.endpoints.feedback import FeedbackAnswer, FeedbackRequest
from tamis.server.endpoints.limits import Limits
from tamis.server.endpoints.stats import Stats
from tamis.wire.dialect import Endpoint
from tamis.wire.registry import DIALECTS, Registry

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "start.js": "text/javascript",
}

PATHS = frozenset({"/", "/docs", "/openapi.json", *(f"/docs/{name}" for name in ASSETS)})
"""These ask for no key: what they say is in the package, and how a key is sent is part of it."""

_HOW_TO_SEND_A_KEY = """

Where the server has keys, every path but the probes and this description asks for one: send it as
`Authorization: Bearer KEY` or as `X-API-Key: KEY` ("Authorize" does), one of the two and once."""

_DESCRIPTION = f"{tamis.__doc__}{_HOW_TO_SEND_A_KEY}"

_OTHERS = (Limits, Stats, FeedbackRequest, FeedbackAnswer)

_FEEDBACK_EXAMPLE = {"request_id": "4bf92f3577b34da6", "index": [3, 0], "event": "used"}

_ERROR_STATUSES = {
    "400": "The body is not JSON, or a required field is missing or empty; or a foreign `Host`.",
    "401": "There is no key, or none that is known.",
    "403": "The request comes from the page of another site.",
    "404": "No such answer is remembered.",
    "408": "The headers or the body were not there in time.",
    "413": "The body, its chunks or its tokens are more than the server takes.",
    "415": "The body is said to be no JSON, or is packed in an unknown way.",
    "422": "A field has a wrong type or value.",
    "424": "The model failed, in TEI's dialect.",
    "429": "The queue is full; `Retry-After` says when to come back.",
    "431": "There are more headers, or more bytes of them, than the server reads.",
    "500": "The model failed, or the server did.",
    "503": "The model is loading or its device fails, or the server is shutting down.",
    "504": "It cannot be, or was not, answered in the time allowed.",
    "507": "A document is too large for every device's memory.",
}

_SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer KEY`, where the server has keys.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "`X-API-Key: KEY`, in place of the other.",
    },
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tamis API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
_PAGE_HEADERS = {
    # Swagger UI sets styles on elements and shows its icons as data URLs
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:",
}


@cache
def openapi_document(dialects: Registry = DIALECTS) -> dict[str, Any]:
    """The API in OpenAPI 3.1, from the very types that read and write bodies."""
    schemas, components = _schemas(dialects)
    errors = [schemas[dialect.error] for dialect in dialects.dialects]
    paths: dict[str, Any] = {}
    for path, method, endpoints in dialects.places():
        paths.setdefault(path, {})[method.lower()] = _operation(endpoints, schemas, errors)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tamis", "version": tamis.__version__, "description": _DESCRIPTION},
        "paths": paths
        | {
            "/v1/limits": _got(
                "What a request, a connection and your key may take.", schemas[Limits], errors
            ),
            "/v1/stats": _got("The server in numbers, and the ranking's.", schemas[Stats], errors),
            "/v1/feedback": {
                "post": _feedback_operation(
                    schemas[FeedbackRequest], schemas[FeedbackAnswer], errors
                )
            },
            "/livez": _probe("Is the process alive?"),
            "/readyz": _probe("Does the model answer?", unready=True),
            "/metrics": _probe("Metrics in Prometheus's text format.", media_type="text/plain"),
        },
        "components": {"schemas": components, "securitySchemes": _SECURITY_SCHEMES},
        "security": [{}, *({name: []} for name in _SECURITY_SCHEMES)],
    }


def _schemas(dialects: Registry) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The schema of each type that stands in a body, and what they refer to."""
    endpoints = [one for dialect in dialects.dialects for one in dialect.endpoints]
    types = [
        *(one.request for one in endpoints if one.request is not None),
        *(one.answer for one in endpoints),
        *(dialect.error for dialect in dialects.dialects),
        *_OTHERS,
    ]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    return dict(zip(types, schemas, strict=True)), components


async def openapi(_: Request) -> Response:
    """`GET /openapi.json`."""
    return JSONResponse(openapi_document())


async def page(request: Request) -> Response:
    """`GET /docs`; from another spelling of it, such as `/docs/`, its links would lead nowhere."""
    if request.scope["raw_path"].endswith(b"/"):
        return RedirectResponse("/docs")
    return HTMLResponse(_PAGE, headers=_PAGE_HEADERS)


def asset_routes() -> list[Route]:
    """Swagger UI's files, each at its own path."""
    return [Route(f"/docs/{name}", _asset, name=name) for name in ASSETS]


async def _asset(request: Request) -> Response:
    name = request.scope["path"].rpartition("/")[2]
    return Response(_read_asset(name), media_type=ASSETS[name])


@cache
def _read_asset(name: str) -> bytes:
    return (files("tamis.server") / "swagger" / name).read_bytes()


def _operation(endpoints: Sequence[Endpoint], schemas: Any, errors: Any) -> dict[str, Any]:
    """A path and method of dialects; those that share it tell one another apart by the body."""
    first = endpoints[0]
    answers = [schemas[one.answer] for one in endpoints]
    operation: dict[str, Any] = {
        "tags": [first.tag],
        "summary": first.summary,
        "responses": {"200": _answer(first.answered, {"anyOf": answers})}
        | {
            status: _answer(text, {"anyOf": errors})
            for status, text in _ERROR_STATUSES.items()
            if status != "404"
        },
    }
    requests = [schemas[one.request] for one in endpoints if one.request is not None]
    if requests:
        body = {"schema": {"anyOf": requests}, "example": first.example}
        operation["requestBody"] = {"required": True, "content": {"application/json": body}}
    if len(endpoints) > 1:
        signs = ", ".join(one.sign for one in endpoints)
        operation["description"] = f"The body decides the dialect: {signs}."
    return operation


def _feedback_operation(schema: Any, counted: Any, errors: Any) -> dict[str, Any]:
    statuses = ("400", "401", "403", "404", "408", "413", "415", "422", "429", "431", "503")
    return {
        "tags": ["relevance"],
        "summary": "Say which documents of an answer were used or clicked.",
        "description": "Of an answer of yours that is not too long ago; each document counts once.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": _FEEDBACK_EXAMPLE}},
        },
        "responses": {"200": _answer("What was counted.", counted)}
        | {status: _answer(_ERROR_STATUSES[status], {"anyOf": errors}) for status in statuses},
    }


def _got(summary: str, schema: Any, errors: Any) -> dict[str, Any]:
    refused = {
        status: _answer(_ERROR_STATUSES[status], {"anyOf": errors}) for status in ("400", "401")
    }
    return {
        "get": {
            "tags": ["operations"],
            "summary": summary,
            "responses": {"200": _answer("In force now.", schema)} | refused,
        }
    }


def _answer(description: str, schema: object, media_type: str = "application/json") -> object:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _probe(
    summary: str, *, unready: bool = False, media_type: str = "application/json"
) -> dict[str, Any]:
    schema = {"type": "object"} if media_type == "application/json" else {"type": "string"}
    responses = {"200": _answer("Yes." if unready else "Always.", schema, media_type)}
    if unready:
        responses["503"] = _answer("Not yet, or not any more.", schema)
    return {"get": {"tags": ["operations"], "summary": summary, "responses": responses}}
