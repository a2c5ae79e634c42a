"""Errors -> HTTP, in one table."""

from tamis.errors import (
    BodyTooLargeError,
    InferenceError,
    InvalidTextError,
    MalformedBodyError,
    MissingFieldError,
    QueueFullError,
    RequestError,
    RequestTooLargeError,
    TamisError,
    UnavailableError,
)

RETRY_AFTER_SECONDS = 1

ERROR_STATUSES: dict[type[TamisError], int] = {
    TamisError: 500,
    RequestError: 422,
    MalformedBodyError: 400,
    MissingFieldError: 400,
    InvalidTextError: 400,
    BodyTooLargeError: 413,
    RequestTooLargeError: 413,
    UnavailableError: 503,
    QueueFullError: 429,
    InferenceError: 500,
}


def status_of(error: TamisError) -> int:
    """The HTTP status of an error: its class's, or that of the nearest class above."""
    return next(ERROR_STATUSES[cls] for cls in type(error).__mro__ if cls in ERROR_STATUSES)


def headers_of(status: int) -> dict[str, str]:
    """Headers that belong to an error's status."""
    return {"retry-after": str(RETRY_AFTER_SECONDS)} if status in (429, 503) else {}
