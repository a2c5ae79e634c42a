"""Errors -> HTTP, in one table."""

import math
import random
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Scope

from tamis.errors import (
    BodyTooLargeError,
    DeadlineExceededError,
    HostNotAllowedError,
    InferenceError,
    InvalidTextError,
    MalformedBodyError,
    MissingFieldError,
    NoSuchEndpointError,
    OriginNotAllowedError,
    OutOfMemoryError,
    QueueFullError,
    RequestError,
    RequestTooLargeError,
    SlowBodyError,
    TamisError,
    UnauthorizedError,
    UnavailableError,
    UnknownRequestError,
    UnsupportedMediaTypeError,
)
from tamis.server.answers import json_answer
from tamis.wire.dialect import Failure
from tamis.wire.native import NATIVE
from tamis.wire.registry import DIALECTS

MOST_RETRY_AFTER_SECONDS = 60
RETRY_JITTER = 0.5
"""Of the waiting time, added at random, so that who was refused together comes back apart."""

ERROR_STATUSES: dict[type[TamisError], int] = {
    TamisError: 500,
    RequestError: 422,
    MalformedBodyError: 400,
    MissingFieldError: 400,
    InvalidTextError: 400,
    HostNotAllowedError: 400,
    UnauthorizedError: 401,
    OriginNotAllowedError: 403,
    NoSuchEndpointError: 404,
    UnknownRequestError: 404,
    SlowBodyError: 408,
    BodyTooLargeError: 413,
    RequestTooLargeError: 413,
    UnsupportedMediaTypeError: 415,
    UnavailableError: 503,
    QueueFullError: 429,
    DeadlineExceededError: 504,
    OutOfMemoryError: 507,
    InferenceError: 500,
}


def status_of(error: TamisError) -> int:
    """The HTTP status of an error: its class's, or that of the nearest class above."""
    return next(ERROR_STATUSES[cls] for cls in type(error).__mro__ if cls in ERROR_STATUSES)


def headers_of(error: TamisError) -> dict[str, str]:
    """Headers that belong to an error: when to come again, in whole seconds, or how."""
    if isinstance(error, UnauthorizedError):
        return {"www-authenticate": 'Bearer realm="tamis"'}
    if isinstance(error, SlowBodyError):
        return {"connection": "close"}
    if not isinstance(error, UnavailableError):
        return {}
    seconds = (error.retry_after_seconds or 0.0) * (1 + RETRY_JITTER * random.random())  # noqa: S311 - no secret
    return {"retry-after": str(min(MOST_RETRY_AFTER_SECONDS, max(1, math.ceil(seconds))))}


def refusal(error: TamisError, scope: Scope) -> Response:
    """The answer to a request that no route sees; its code stays in the request's state."""
    scope["state"]["refusal"] = error.code
    return early_answer(error, status_of(error), scope, headers_of(error))


def http_error(
    status: int, detail: str, scope: Scope, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer of HTTP's own errors: no such path, no such method."""
    error = NoSuchEndpointError(detail)
    scope["state"]["error_code"] = error.code
    return early_answer(error, status, scope, headers)


def early_answer(
    error: TamisError, status: int, scope: Scope, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to an error raised before the dialect is known: in all dialects of its path."""
    failure = Failure(error, status, scope["state"]["request_id"])
    status, body = DIALECTS.encode_error(scope["path"], failure)
    return json_answer(body, status, headers)


def native_error(error: TamisError, request_id: str) -> Response:
    """An error of a path that is tamis's own."""
    status, body = NATIVE.encode_error(Failure(error, status_of(error), request_id))
    return json_answer(body, status, headers_of(error))
