"""The paths of all dialects: read the body, choose the dialect, decode, do what is asked for."""

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tamis.errors import ShuttingDownError, TamisError
from tamis.server.answers import json_answer
from tamis.server.body import parse_body, read_body
from tamis.server.context import ServerContext
from tamis.server.endpoints.rerank import Reranking
from tamis.server.errors import headers_of, status_of
from tamis.server.keys import Caller
from tamis.wire.dialect import (
    EncodeError,
    Endpoint,
    Failure,
    Method,
    RawBody,
    RerankEndpoint,
)
from tamis.wire.parsing import parse_object
from tamis.wire.registry import DIALECTS, Registry

CLIENT_GONE = 499
"""nginx's status for a caller who left; only the log and the metrics see it."""


class Operation(Protocol):
    """What an endpoint asks for, read from a request."""

    @property
    def n_held_bytes(self) -> int:
        """Memory that it holds until it is answered."""
        ...

    async def answer(self) -> Response:
        """Do it, and write the answer.

        Raises:
            TamisError: it cannot be done.
            ClientDisconnect: the caller left.
        """
        ...


Operations = Mapping[type[Endpoint], Callable[[Request, Any, RawBody], Operation]]

OPERATIONS: Operations = {RerankEndpoint: Reranking.decode}
"""How each kind of endpoint is read: from a request, the endpoint and the body."""


def dialect_routes(
    dialects: Registry = DIALECTS, operations: Operations = OPERATIONS
) -> list[Route]:
    """A route for each path and method that a dialect has."""
    return [
        Route(path, partial(_answer, dialects, operations, method), methods=[method])
        for path, method, _ in dialects.places()
    ]


async def _answer(
    dialects: Registry, operations: Operations, method: Method, request: Request
) -> Response:
    """Answer a request; errors are in its dialect or, before that is known, in all of its path."""
    context, path = ServerContext.of(request), request.scope["path"]
    caller: Caller = request.state.caller
    request.state.encode_error = partial(dialects.encode_error, path)
    request.state.dialect = dialects.speakers(path)[0].name
    try:
        with context.bodies.share(caller.name) as share, ended_by_draining():
            content = bytearray()
            if method == "POST":
                content = await read_body(request, context.settings.limits, share)
            read = partial(_read, dialects, operations, method, request)
            with context.assembly.timing.phase("decode"):
                operation = await parse_body(content, read, context.parsing, caller.name)
            del content, read  # what it says is held instead
            share.hold(operation.n_held_bytes)
            return await operation.answer()
    except ClientDisconnect:
        context.metrics.observe_cancelled()
        return Response(status_code=CLIENT_GONE)
    except TamisError as error:
        context.metrics.observe_error(error.code)
        request.state.error_code = error.code
        encode_error: EncodeError = request.state.encode_error
        status, answer = encode_error(Failure(error, status_of(error), request.state.request_id))
        return json_answer(answer, status, headers_of(error))


def _read(
    dialects: Registry,
    operations: Operations,
    method: Method,
    request: Request,
    content: bytearray,
) -> Operation:
    """What a body asks for; from where its dialect is known, errors are told in it.

    Raises:
        MalformedBodyError: the body is not a JSON object.
        RequestError: it cannot be answered as it stands.
    """
    body = parse_object(content) if method == "POST" else {}
    dialect, endpoint = dialects.choose(request.scope["path"], method, body)
    request.state.encode_error, request.state.dialect = dialect.encode_error, dialect.name
    return operations[type(endpoint)](request, endpoint, body)


@contextmanager
def ended_by_draining() -> Generator[None]:
    """Cancelling is uvicorn's way to say that the time to drain is over.

    Raises:
        ShuttingDownError: it said so.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        raise ShuttingDownError("the server is shutting down; try again elsewhere") from error
