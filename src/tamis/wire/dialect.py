"""What every dialect has in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from tamis.errors import InvalidFieldError, MissingFieldError, TamisError
from tamis.types import CacheUse, RerankRequest, RerankResult

T = TypeVar("T")

_FOR_EVER_MS = 10**12
"""JSON has larger integers than a float can hold."""

RawBody = dict[str, Any]
"""A parsed JSON object, before any dialect has looked at it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error on its way out.

    Attributes:
        status: HTTP status; a dialect may put its own in its place.
        request_id: What the log knows the request by.
    """

    error: TamisError
    status: int
    request_id: str


class Terms(msgspec.Struct):
    """On what terms a request is answered; fields of every dialect that has room for them."""

    priority: (
        Annotated[
            int,
            msgspec.Meta(description="Of your own requests the lower goes first.", ge=0, le=999),
        ]
        | None
    ) = None
    timeout_ms: (
        Annotated[
            int, msgspec.Meta(description="Milliseconds until the answer must be there.", ge=1)
        ]
        | None
    ) = None
    partial: Annotated[
        bool | None,
        msgspec.Meta(description="Answer with what could be scored in time (default false)."),
    ] = None
    cache: Annotated[
        bool | None,
        msgspec.Meta(description="False computes all anew and keeps nothing (default true)."),
    ] = None

    @property
    def cache_use(self) -> CacheUse:
        """What the cache may do for this request."""
        return "off" if self.cache is False else "normal"

    @property
    def timeout_seconds(self) -> float | None:
        """The time allowed, in seconds."""
        return None if self.timeout_ms is None else min(self.timeout_ms, _FOR_EVER_MS) / 1000


class Reason(msgspec.Struct):
    """Why a document has no score."""

    code: str
    message: str


class Call(Protocol):
    """One decoded request, and how its answer is written."""

    @property
    def request(self) -> RerankRequest:
        """What is asked, in the words that all layers speak."""
        ...

    def encode(self, result: RerankResult, request_id: str) -> object:
        """The answer, ready for `msgspec.json.encode`."""
        ...


class Dialect(Protocol):
    """One way of asking for a rerank and of being answered."""

    @property
    def name(self) -> str:
        """For logs and metrics."""
        ...

    @property
    def decode(self) -> Callable[[RawBody], Call]:
        """Read a body; raises `RequestError`."""
        ...

    @property
    def encode_error(self) -> Callable[[Failure], tuple[int, object]]:
        """Status and body of an error."""
        ...


def convert(body: RawBody, model: type[T]) -> T:
    """Check a body against a dialect's request type, leniently as its clients need.

    Unknown fields are ignored and `"true"`, `"3"` are taken for true and 3.

    Raises:
        InvalidFieldError: a field has a wrong type; no text of the body is repeated.
    """
    try:
        return msgspec.convert(body, model, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidFieldError(_sentence(str(error))) from None


def require(body: RawBody, *names: str) -> None:
    """Refuse a body in which a field is absent, null or empty.

    Raises:
        MissingFieldError: names the first such field.
    """
    for name in names:
        value = body.get(name)
        if value is None or value == [] or (isinstance(value, str) and not value.strip()):
            raise MissingFieldError(f"Missing or empty `{name}`")


def _sentence(message: str) -> str:
    """Msgspec's message with the field first: "`documents[3]`: Expected `str`, got `int`"."""
    text, _, path = message.rpartition(" - at ")
    if text.startswith("Invalid enum value"):
        text = "Invalid enum value"  # msgspec goes on with the value, a text of the caller's
    return f"`{path.strip('`').removeprefix('$.')}`: {text}" if text else message
