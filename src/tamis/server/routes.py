"""The rerank endpoint: one path, several dialects."""

import asyncio
from collections.abc import Mapping

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tamis.errors import (
    BodyTooLargeError,
    ShuttingDownError,
    TamisError,
    TooManyDocumentsError,
)
from tamis.server.context import ServerContext
from tamis.server.errors import headers_of, status_of
from tamis.service import RerankService
from tamis.types import RerankRequest, RerankResult
from tamis.wire.choice import choose_dialect, parse_object
from tamis.wire.dialect import Dialect, Failure
from tamis.wire.native import Native

CLIENT_GONE = 499
"""nginx's status for a caller who left; only the log and the metrics see it."""


async def rerank(request: Request) -> Response:
    """Decode, rerank, encode; errors in the dialect that was spoken."""
    context = ServerContext.of(request)
    request_id: str = request.state.request_id
    dialect: Dialect = Native()
    request.state.dialect = dialect.name
    try:
        body = parse_object(await _read_body(request, context.settings.max_body_bytes))
        dialect = choose_dialect(body)
        request.state.dialect = dialect.name
        call = dialect.decode(body)
        _require_few(call.request, context.settings.max_documents)
        result = await _answer(context.life.service, call.request)
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    except TamisError as error:
        failure = Failure(error, status_of(error), request_id)
        status, answer = dialect.encode_error(failure)
        return _json(answer, status, headers_of(status))
    context.metrics.observe_usage(result.usage)
    request.state.usage = result.usage
    return _json(call.encode(result, request_id))


async def _answer(service: RerankService, request: RerankRequest) -> RerankResult:
    try:
        return await service.rerank(request)
    except asyncio.CancelledError as error:  # uvicorn's way to say that the time to drain is over
        raise ShuttingDownError("the server is shutting down; try again elsewhere") from error


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """The body, read no further than it may go."""
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > max_bytes:
            raise BodyTooLargeError(
                f"the body has more than {max_bytes:,} bytes; split the request"
            )
    return bytes(chunks)


def _require_few(request: RerankRequest, max_documents: int) -> None:
    n_documents = len(request.documents)
    if n_documents > max_documents:
        raise TooManyDocumentsError(
            f"{n_documents:,} documents, at most {max_documents:,} allowed; split the request"
        )


def _json(answer: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(answer),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )
