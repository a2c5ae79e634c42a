"""How much a request may ask for, looked at before any work is done; `GET /v1/limits` shows it."""

from dataclasses import replace
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tamis.errors import RequestTooLargeError, TooManyDocumentsError
from tamis.server.answers import json_answer
from tamis.server.body import ENCODINGS
from tamis.server.context import ServerContext
from tamis.server.framing import MAX_CHUNKS, MAX_HEADERS
from tamis.server.keys import Caller
from tamis.server.protocol import ANSWER_SECONDS
from tamis.settings import LimitsSettings
from tamis.stage import least_tokens, too_many_characters
from tamis.types import RerankRequest
from tamis.wire.parsing import MAX_CONTAINERS, MAX_DEPTH


class Limits(msgspec.Struct):
    """What one request, connection or caller may take."""

    max_body_bytes: Annotated[int, msgspec.Meta(description="As it is sent and unpacked.")]
    max_total_body_bytes: Annotated[
        int, msgspec.Meta(description="Bytes of all callers' bodies, from arrival to answer.")
    ]
    max_unsent_bytes: Annotated[
        int, msgspec.Meta(description="Bytes of all callers' unread answers.")
    ]
    max_unpacked_ratio: Annotated[int, msgspec.Meta(description="Unpacked bytes of a packed one.")]
    content_encodings: list[str]
    max_depth: Annotated[int, msgspec.Meta(description="Levels of JSON arrays and objects.")]
    max_containers: Annotated[int, msgspec.Meta(description="JSON arrays and objects, or keys.")]
    max_documents: int
    max_document_characters: Annotated[
        int, msgspec.Meta(description="Longer documents are cut, where the request allows that.")
    ]
    max_query_characters: int
    max_request_tokens: Annotated[
        int, msgspec.Meta(description="Tokens of all pairs of a request.")
    ]
    max_tokens_per_pair: Annotated[
        int | None, msgspec.Meta(description="Longer pairs are cut; null while the model loads.")
    ]
    max_queued_tokens: Annotated[
        int, msgspec.Meta(description="Tokens of your requests, waiting or running.")
    ]
    max_timeout_ms: int
    max_headers: int
    max_header_bytes: int
    max_chunks: int
    header_seconds: float
    body_seconds: float
    answer_seconds: float
    max_answer_seconds: float
    idle_seconds: float


async def limits(request: Request) -> Response:
    """`GET /v1/limits`."""
    shown = _limits_of(ServerContext.of(request), request.state.caller)
    return json_answer(shown)


def within_limits(
    request: RerankRequest, options: LimitsSettings, max_length: int | None
) -> RerankRequest:
    """The request, with its documents bounded; refuses what is too much before it is tokenized.

    A document beyond its limit is cut where the request allows that, and fails alone where a part
    of an answer is enough.

    Args:
        request: The request.
        options: How much may be.
        max_length: Tokens the model reads of a pair; None while it loads.

    Raises:
        TooManyDocumentsError: more than a request may carry.
        TooManyCharactersError: the query or a document is too long.
        RequestTooLargeError: by their characters, its pairs have more tokens than they may.
        InvalidFieldError: a document has no text.
    """
    if len(request.documents) > options.max_documents:
        raise too_many_documents(len(request.documents), options)
    most = options.max_document_characters
    request = replace(request, max_document_characters=most)
    lengths = [len(text) for text in request.texts()]
    if len(request.query) > options.max_query_characters:
        raise too_many_characters("the query", len(request.query), options.max_query_characters)
    if not request.partial:
        for index, n_characters in enumerate(lengths):
            if n_characters > most:
                raise too_many_characters(f"document {index}", n_characters, most)
    lengths = [min(n_characters, most) for n_characters in lengths]
    if max_length is not None:
        n_tokens = least_tokens(lengths, max_length)
        if n_tokens > options.max_request_tokens:
            raise RequestTooLargeError(
                f"the request has {n_tokens:,} tokens or more, at most "
                f"{options.max_request_tokens:,} allowed; split the request"
            )
    return request


def too_many_documents(n_documents: int, options: LimitsSettings) -> TooManyDocumentsError:
    """Why a request with more documents than allowed is refused."""
    return TooManyDocumentsError(
        f"{n_documents:,} documents, at most {options.max_documents:,} allowed; split the request"
    )


def _limits_of(context: ServerContext, caller: Caller) -> Limits:
    settings, model = context.settings, context.assembly.default.model
    options = settings.limits
    queued = settings.scheduler.max_queued_tokens
    return Limits(
        max_body_bytes=options.max_body_bytes,
        max_total_body_bytes=options.max_total_body_bytes,
        max_unsent_bytes=options.max_unsent_bytes,
        max_unpacked_ratio=options.max_unpacked_ratio,
        content_encodings=[name for name, make in ENCODINGS.items() if make],
        max_depth=MAX_DEPTH,
        max_containers=MAX_CONTAINERS,
        max_documents=options.max_documents,
        max_document_characters=options.max_document_characters,
        max_query_characters=options.max_query_characters,
        max_request_tokens=options.max_request_tokens,
        max_tokens_per_pair=model.facts.max_length if model else None,
        max_queued_tokens=min(queued, caller.max_queued_tokens or queued),
        max_timeout_ms=int(settings.server.timeout_seconds * 1000),
        max_headers=MAX_HEADERS,
        max_header_bytes=options.max_header_bytes,
        max_chunks=MAX_CHUNKS,
        header_seconds=options.header_seconds,
        body_seconds=options.body_seconds,
        answer_seconds=ANSWER_SECONDS,
        max_answer_seconds=options.max_answer_seconds,
        idle_seconds=options.idle_seconds,
    )
