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
from tamis.wire.dialect import EncodeError, Endpoint, Failure, Method, RawBody, RerankEndpoint
from tamis.wire.registry import DIALECTS, Registry

CLIENT_GONE = 499
"""nginx's status for a caller who left; only the log and the metrics see it."""


class Operation(Protocol):
    """What an endpoint asks for, read from a request."""

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
    context = ServerContext.of(request)
    limits, path = context.settings.limits, request.scope["path"]
    encode_error: EncodeError = partial(dialects.encode_error, path)
    request.state.dialect = dialects.speakers(path)[0].name
    try:
        with context.bodies.share() as share, ended_by_draining():
            content = b"" if method == "GET" else await read_body(request, limits, share)
            with context.assembly.timing.phase("decode"):
                body = {} if method == "GET" else await parse_body(content)
                dialect, endpoint = dialects.choose(path, method, body)
                encode_error, request.state.dialect = dialect.encode_error, dialect.name
                operation = operations[type(endpoint)](request, endpoint, body)
            return await operation.answer()
    except ClientDisconnect:
        context.metrics.observe_cancelled()
        return Response(status_code=CLIENT_GONE)
    except TamisError as error:
        context.metrics.observe_error(error.code)
        request.state.error_code = error.code
        status, answer = encode_error(Failure(error, status_of(error), request.state.request_id))
        return json_answer(answer, status, headers_of(error))


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
