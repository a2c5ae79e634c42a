"""`POST /v1/feedback`: what a caller made of an answer's documents."""

from typing import Annotated, Literal

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tamis.errors import TamisError
from tamis.server.answers import json_answer
from tamis.server.body import parse_body, read_body
from tamis.server.context import ServerContext
from tamis.server.endpoints.dialects import CLIENT_GONE, ended_by_draining
from tamis.server.errors import native_error
from tamis.server.keys import Caller
from tamis.wire.dialect import convert, require
from tamis.wire.parsing import parse_object

Index = Annotated[int, msgspec.Meta(ge=0)]


class FeedbackRequest(msgspec.Struct):
    """What is said of one document, or of several."""

    request_id: Annotated[
        str, msgspec.Meta(description="The answer's `X-Request-Id`.", min_length=1, max_length=64)
    ]
    index: Annotated[
        Index | Annotated[list[Index], msgspec.Meta(min_length=1)],
        msgspec.Meta(description="The document's place in the request, from 0; or a list of them."),
    ]
    event: Annotated[
        Literal["used", "clicked"],
        msgspec.Meta(description="It went into a prompt or an answer, or a person chose it."),
    ]


class FeedbackAnswer(msgspec.Struct):
    """What was counted."""

    request_id: str
    counted: int
    repeated: Annotated[
        int, msgspec.Meta(description="Documents of which the same was said before.")
    ]


async def feedback(request: Request) -> Response:
    """Count it, where the caller has had such an answer lately."""
    context = ServerContext.of(request)
    caller: Caller = request.state.caller
    limits = context.settings.limits
    try:
        with context.bodies.share(caller.name) as share, ended_by_draining():
            content = await read_body(request, limits, share)
            said = await parse_body(content, _said, context.parsing, caller.name)
        indices = said.index if isinstance(said.index, list) else [said.index]
        n_counted = context.watch.monitor.feedback.record(
            caller.name, said.request_id, indices, said.event
        )
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    except TamisError as error:
        request.state.error_code = error.code
        return native_error(error, request.state.request_id)
    return json_answer(FeedbackAnswer(said.request_id, n_counted, len(indices) - n_counted))


def _said(content: bytearray) -> FeedbackRequest:
    body = parse_object(content)
    require(body, "request_id", "index", "event")
    return convert(body, FeedbackRequest)
