"""What every dialect's rerank endpoint does."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tamis.errors import InvalidFieldError
from tamis.server.answers import json_answer
from tamis.server.context import ServerContext
from tamis.server.endpoints.limits import too_many_documents, within_limits
from tamis.server.keys import Caller
from tamis.service import RerankService
from tamis.types import RerankRequest, RerankResult
from tamis.wire.dialect import Call, RawBody, RerankEndpoint, warnings_of
from tamis.wire.parsing import count_documents

TIMEOUT_HEADER = "x-request-timeout-ms"
CACHE_HEADER = "cache-control"
WARNINGS_HEADER = "x-tamis-warnings"


@dataclass(frozen=True, slots=True)
class Reranking:
    """A rerank request of any dialect.

    Attributes:
        request: As it came.
        call: What the dialect has read, and how it answers.
        asked: The call's request, within the limits and with what headers say.
    """

    request: Request
    call: Call
    asked: RerankRequest

    @classmethod
    def decode(cls, request: Request, endpoint: RerankEndpoint, body: RawBody) -> Self:
        """Read it.

        Raises:
            RequestError: it cannot be answered as it stands.
        """
        context = ServerContext.of(request)
        limits, model = context.settings.limits, context.assembly.default.model
        n_documents = count_documents(body)
        if n_documents > limits.max_documents:
            raise too_many_documents(n_documents, limits)
        call = endpoint.decode(body)
        asked = within_limits(call.request, limits, model.facts.max_length if model else None)
        asked = _within_header(asked, request.headers.get(TIMEOUT_HEADER))
        asked = _with_cache_control(asked, request.headers.getlist(CACHE_HEADER))
        return cls(request, call, asked)

    @property
    def n_held_bytes(self) -> int:
        """Memory that the call's request holds."""
        return self.call.request.n_held_bytes

    async def answer(self) -> Response:
        """Rerank, take note of it, and encode.

        Raises:
            TamisError: as `RerankService.rerank`.
            ClientDisconnect: the caller left.
        """
        context, state = ServerContext.of(self.request), self.request.state
        result = await _answer(context.life.service, self.asked, self.request)
        context.metrics.observe_usage(result.usage)
        state.usage = result.usage
        state.model = result.model
        caller: Caller = state.caller
        context.watch.answered(
            self.asked,
            result,
            dialect=state.dialect,
            caller=caller.name,
            request_id=state.request_id,
        )
        with context.assembly.timing.phase("respond"):
            warnings = "; ".join(warnings_of(self.call.warnings, result))
            headers = {WARNINGS_HEADER: warnings} if warnings else None
            return json_answer(self.call.encode(result, state.request_id), headers=headers)


async def _answer(service: RerankService, asked: RerankRequest, request: Request) -> RerankResult:
    """Rerank for as long as the caller is there.

    Raises:
        ClientDisconnect: the caller left; what waited for it is out of the queue.
    """
    caller: Caller = request.state.caller
    answering = asyncio.ensure_future(
        service.rerank(asked, caller=caller.name, max_caller_tokens=caller.max_queued_tokens)
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
