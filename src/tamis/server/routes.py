"""The rerank endpoint: one path, several dialects."""

import asyncio
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tamis.errors import InvalidFieldError, ShuttingDownError, TamisError
from tamis.server.answers import json_answer
from tamis.server.body import BodyShare, parse_body, read_body
from tamis.server.context import ServerContext
from tamis.server.errors import headers_of, status_of
from tamis.server.keys import Caller
from tamis.server.limits import too_many_documents, within_limits
from tamis.service import RerankService
from tamis.settings import LimitsSettings
from tamis.types import RerankRequest, RerankResult
from tamis.wire.choice import choose_dialect, count_documents, parse_object
from tamis.wire.dialect import Call, Dialect, Failure, warnings_of
from tamis.wire.native import Native

TIMEOUT_HEADER = "x-request-timeout-ms"
CACHE_HEADER = "cache-control"
WARNINGS_HEADER = "x-tamis-warnings"
CLIENT_GONE = 499
"""nginx's status for a caller who left; only the log and the metrics see it."""


async def rerank(request: Request) -> Response:
    """Decode, rerank, encode; errors in the dialect that was spoken."""
    context = ServerContext.of(request)
    limits, timing = context.settings.limits, context.life.timing
    caller: Caller = request.state.caller
    request_id: str = request.state.request_id
    dialect: Dialect = Native()
    request.state.dialect = dialect.name
    try:
        with context.bodies.share(caller.name) as share, ended_by_draining():
            dialect, call = await _decoded(request, share)
            request.state.dialect = dialect.name
            if isinstance(call, TamisError):
                raise call
            model = context.life.model
            asked = within_limits(call.request, limits, model.max_length if model else None)
            asked = _within_header(asked, request.headers.get(TIMEOUT_HEADER))
            asked = _with_cache_control(asked, request.headers.getlist(CACHE_HEADER))
            result = await _answer(context.life.service, asked, request)
    except ClientDisconnect:
        context.metrics.observe_cancelled()
        return Response(status_code=CLIENT_GONE)
    except TamisError as error:
        context.metrics.observe_error(error.code)
        request.state.error_code = error.code
        failure = Failure(error, status_of(error), request_id)
        status, answer = dialect.encode_error(failure)
        return json_answer(answer, status, headers_of(error))
    context.metrics.observe_usage(result.usage)
    request.state.usage = result.usage
    request.state.model = result.model
    context.relevance.answered(
        asked, result, dialect=dialect.name, caller=caller.name, request_id=request_id
    )
    with timing.stage("respond"):
        warnings = "; ".join(warnings_of(call.warnings, result))
        headers = {WARNINGS_HEADER: warnings} if warnings else None
        return json_answer(call.encode(result, request_id), headers=headers)


async def _decoded(request: Request, share: BodyShare) -> tuple[Dialect, Call | TamisError]:
    """What a body asks, and in which dialect; the body itself is not kept.

    Raises:
        TamisError: it is not there, no JSON, or there is no room for what it says.
        ClientDisconnect: the caller left in the middle of it.
    """
    context, caller = ServerContext.of(request), request.state.caller
    limits = context.settings.limits
    content = await read_body(request, limits, share)
    with context.life.timing.stage("decode"):
        decoded = await parse_body(
            content, partial(_decode, limits=limits), context.parsing, caller.name
        )
    if not isinstance(decoded[1], TamisError):
        error = share.hold(decoded[1].request.n_held_bytes)
        if error is not None:
            raise error
    return decoded


def _decode(content: bytearray, limits: LimitsSettings) -> tuple[Dialect, Call | TamisError]:
    body = parse_object(content, limits)
    dialect = choose_dialect(body)
    n_documents = count_documents(body)
    if n_documents > limits.max_documents:
        return dialect, too_many_documents(n_documents, limits)
    try:
        return dialect, dialect.decode(body)
    except TamisError as error:  # it is told in the dialect
        return dialect, error


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


async def _answer(service: RerankService, asked: RerankRequest, request: Request) -> RerankResult:
    """Rerank for as long as the caller is there.

    Raises:
        ClientDisconnect: the caller left; what waited for it is out of the queue.
    """
    caller: Caller = request.state.caller
    answering = asyncio.ensure_future(
        service.rerank(asked, flow=caller.name, max_flow_tokens=caller.max_queued_tokens)
    )
    leaving = asyncio.ensure_future(request.receive())  # the body is read: no message but one
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


def _within_header(request: RerankRequest, header: str | None) -> RerankRequest:
    """The request, with as much time as the header leaves it.

    Raises:
        InvalidFieldError: the header is no number of milliseconds.
    """
    if header is None:
        return request
    if not (header.isascii() and header.isdecimal() and len(header) <= 12 and int(header)):
        raise InvalidFieldError(f"`{TIMEOUT_HEADER}` must be a whole number of milliseconds")
    seconds = min(int(header) / 1000, request.timeout_seconds or math.inf)
    return replace(request, timeout_seconds=seconds)


def _with_cache_control(request: RerankRequest, headers: Sequence[str]) -> RerankRequest:
    """The request, with what its Cache-Control headers (RFC 9111) leave the cache."""
    directives = {part.strip().lower() for part in ",".join(headers).split(",")}
    if "no-store" in directives or request.cache == "off":
        return replace(request, cache="off")
    if directives & {"no-cache", "max-age=0"}:
        return replace(request, cache="refresh")
    return request
