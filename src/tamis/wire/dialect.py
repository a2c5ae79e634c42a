"""What every dialect has in common."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from tamis.errors import (
    InvalidFieldError,
    MalformedBodyError,
    MissingFieldError,
    TamisError,
)
from tamis.types import CacheUse, Document, RerankRequest, RerankResult, TruncationSide

T = TypeVar("T")

_FOR_EVER_MS = 10**12
"""JSON has larger integers than a float can hold."""

Method = Literal["GET", "POST"]
RawBody = Mapping[str, Any]
"""The fields of a JSON object, before any dialect has looked at them: their JSON (`msgspec.Raw`).

What no dialect reads is never built: a value takes many times the memory of its JSON.
"""

OUT_OF_RANGE = "the body has a number that is too large to read; send a smaller one"
_SHORT_BYTES = 64
_KINDS_OF_NO_STRING: Mapping[bytes, object] = {
    b"[": [],
    b"{": {},
    b"t": True,
    b"f": False,
    b"n": None,
}


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


EncodeError = Callable[[Failure], tuple[int, object]]
"""Makes status and body of an error."""

QUERY_TRUNCATED = (
    "query_truncated: the query has more tokens than the model reads of one, and its end was cut"
)

EXAMPLE = {
    "query": "苹果公司最新发布的AI功能",
    "documents": [
        "苹果发布会介绍新款iPhone和健康功能",
        "Apple Intelligence 是苹果推出的人工智能系统，可以改写文字、生成图片，并让 Siri 更聪明",
    ],
    "top_n": 2,
}
"""Every field that a first call needs."""

Side = Literal["left", "Left", "right", "Right"]
"""As vLLM and TEI spell them."""


class SharedFields(msgspec.Struct):
    """On what terms a request is answered; fields of every dialect that has room for them."""

    threshold: (
        Annotated[
            float,
            msgspec.Meta(
                description="Lowest score (0..1, the logit's sigmoid) that comes back.", ge=0, le=1
            ),
        ]
        | None
    ) = None
    truncate: Annotated[
        bool | None,
        msgspec.Meta(
            description="False refuses texts beyond max_length instead of cutting them; `END`, "
            "`START` and `NONE` are understood."
        ),
    ] = None
    truncation_side: Annotated[
        Side | None,
        msgspec.Meta(description="The end of a too long document that is cut (default right)."),
    ] = None
    priority: (
        Annotated[
            int,
            msgspec.Meta(description="Your requests with lower values go first.", ge=0, le=999),
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
        msgspec.Meta(description="False recomputes all scores and keeps none (default true)."),
    ] = None

    def rerank_request(
        self, query: str, documents: tuple[Document, ...], top_n: int | None
    ) -> RerankRequest:
        """The request on these terms; a `top_n` of 0 or none returns all documents."""
        return RerankRequest(
            query=query,
            documents=documents,
            top_n=top_n or None,
            threshold=self.threshold,
            truncate=self.truncate is not False,
            truncation_side=self.side,
            priority=self.priority or 0,
            timeout_seconds=self.timeout_seconds,
            partial=self.partial is True,
            cache=self.cache_use,
        )

    @property
    def cache_use(self) -> CacheUse:
        """What the cache may do for this request."""
        return "off" if self.cache is False else "normal"

    @property
    def side(self) -> TruncationSide:
        """The end of a document that is cut."""
        return side_of(self.truncation_side)

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
        """The request in the form that all layers share."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Fields that change nothing, and why."""
        ...

    def encode(self, result: RerankResult, request_id: str) -> object:
        """The answer, ready for `msgspec.json.encode`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One thing that a dialect can be asked for, and where.

    Attributes:
        method: `GET` where there is no body.
        paths: Dialects may share them.
        sign: What a body on a shared path is known by, for the documentation.
        recognizes: Whether a body on a shared path is meant for this endpoint.
        request: Type of the body, None for a `GET`; the documentation is made from it.
        answer: Type of the answer, for the same use.
        tag, summary, answered, example: For the documentation, one for all endpoints of a kind.
    """

    tag: ClassVar[str]
    summary: ClassVar[str]
    answered: ClassVar[str]
    example: ClassVar[object]

    method: Method = "POST"
    paths: tuple[str, ...]
    sign: str = ""
    recognizes: Callable[[RawBody], bool] = lambda _: True
    request: Any = None
    answer: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankEndpoint(Endpoint):
    """Asks for documents to be put in order.

    Attributes:
        decode: Reads a body; raises `RequestError`.
    """

    tag = "rerank"
    summary = "Put documents in order for a query."
    answered = "Best first."
    example = EXAMPLE

    decode: Callable[[RawBody], Call]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API that clients speak.

    Attributes:
        name: In logs and metrics.
        endpoints: All that it can be asked for.
        error: Type of an error's body.
        encode_error: Of every endpoint.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    error: Any
    encode_error: EncodeError


def convert(body: RawBody, model: type[T]) -> T:
    """Check a body against a dialect's request type, leniently as its clients need.

    Unknown fields are skipped and `"true"`, `"3"` are taken for true and 3.

    Raises:
        InvalidFieldError: a field has a wrong type; no text of the body is repeated.
        MalformedBodyError: a number in it is out of every range.
    """
    try:
        return msgspec.json.decode(msgspec.json.encode(body), type=model, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidFieldError(_sentence(str(error), model)) from None
    except (msgspec.DecodeError, RecursionError):
        raise MalformedBodyError("the body is not valid JSON in UTF-8") from None


def peek(value: object) -> object:
    """A field's value where its JSON is short; as it is where it is longer.

    Raises:
        MalformedBodyError: a number in it is out of every range.
    """
    if not isinstance(value, msgspec.Raw) or len(value) > _SHORT_BYTES:
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        raise MalformedBodyError(OUT_OF_RANGE) from None


def sent_documents(
    documents: Iterable[str | dict[str, Any]], *, whole: bool
) -> tuple[Document, ...]:
    """Documents as they are kept until the answer; nothing of the body stays with them.

    Args:
        documents: Texts, or objects whose values are still JSON.
        whole: Whether an object goes back: its text alone is kept where it does not.
    """
    return tuple(
        document if isinstance(document, str) else _sent_object(document, whole=whole)
        for document in documents
    )


def _sent_object(document: dict[str, Any], *, whole: bool) -> Document:
    text = document.get("text")
    if isinstance(text, msgspec.Raw):
        text = _text_of(text)
    if not whole and isinstance(text, str):
        return text
    kept = {name: value.copy() for name, value in document.items() if name != "text"}
    if "text" not in document:
        return kept
    return {name: text if name == "text" else kept[name] for name in document}


def _text_of(value: msgspec.Raw) -> object:
    """The string that a value is; what it is in its place is refused by its kind alone."""
    first = bytes(memoryview(value)[:1])
    return msgspec.json.decode(value) if first == b'"' else _KINDS_OF_NO_STRING.get(first, 0)


def side_of(given: Side | None) -> TruncationSide:
    """The end of a document that is cut, where a body may name it."""
    return "left" if given in ("left", "Left") else "right"


def warnings_of(noted: tuple[str, ...], result: RerankResult) -> list[str]:
    """All that a caller is told beyond the scores; `noted` is of its fields."""
    return [*noted, QUERY_TRUNCATED] if result.usage.query_truncated else list(noted)


def require(body: RawBody, *names: str) -> None:
    """Refuse a body in which a field is absent, null or empty.

    Raises:
        MissingFieldError: names the first such field.
    """
    for name in names:
        value = peek(body.get(name))
        if value is None or value == [] or (isinstance(value, str) and not value.strip()):
            raise MissingFieldError(f"Missing or empty `{name}`")


def _sentence(message: str, model: type[Any]) -> str:
    """Msgspec's message with the field first: "`documents[3]`: Expected `str`, got `int`"."""
    text, _, path = message.rpartition(" - at ")
    if text.startswith("Invalid enum value"):
        # msgspec goes on with the value, a text of the caller's
        values = _values_of(model, path.strip("`").removeprefix("$."))
        text = f"Expected one of {values}" if values else "Invalid enum value"
    return f"`{path.strip('`').removeprefix('$.')}`: {text}" if text else message


def _values_of(model: type[Any], name: str) -> str:
    """The values that a field may have, where it names them one by one."""
    hints = get_type_hints(model)
    return ", ".join(f"`{value}`" for value in _literals(hints.get(name)))


def _literals(hint: object) -> list[str]:
    """The strings of the `Literal`s in a type."""
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    return [value for part in get_args(hint) for value in _literals(part)]
