"""The plain data that all layers speak."""

import math
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from numbers import Integral, Real
from sys import getsizeof
from typing import Literal, Self, cast

from tamis.errors import InvalidFieldError, MissingFieldError, TamisError

Document = str | Mapping[str, object]
"""A text, or a mapping with a `text` and whatever else the caller wants back."""

MOST_PRIORITY = 999
"""Cohere's: 0 goes first."""


BYTES_OF_AN_OBJECT, BYTES_OF_A_FIELD = 300, 300
"""Memory of a document that is an object, and of each of its fields, without the fields' values."""

TruncationSide = Literal["left", "right"]
"""Which end of a document is cut when it is too long."""

CacheUse = Literal["normal", "refresh", "off"]
"""`refresh` computes and keeps, `off` computes and does not keep."""


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """One query and the documents to put in order for it.

    Attributes:
        top_n: How many of the best come back; None for all.
        threshold: Lowest `score` (sigmoid, 0..1) that comes back; None for no bound.
        truncate: False refuses texts beyond `max_length` instead of cutting them.
        truncation_side: The end of a too long document that is cut.
        priority: 0 to 999; of one caller's requests the lower number goes first.
        timeout_seconds: When the answer must be there, from now; None takes the server's own.
        partial: Answer with what could be scored, in time, rather than with an error.
        cache: Whether a server may answer with scores it has, and keep those it computes.
        max_document_characters: Longer documents are cut to this length before they are tokenized,
            or refused where `truncate` is False; None for no bound.
    """

    query: str
    documents: tuple[Document, ...]
    top_n: int | None = None
    threshold: float | None = None
    truncate: bool = True
    truncation_side: TruncationSide = "right"
    priority: int = 0
    timeout_seconds: float | None = None
    partial: bool = False
    cache: CacheUse = "normal"
    max_document_characters: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no dialect, shell or program may ask.

        Raises:
            MissingFieldError: the query is empty.
            InvalidFieldError: the query is no text, or an option is out of its range.
        """
        query = cast("object", self.query)  # callers may have no types
        if not isinstance(query, str):
            raise InvalidFieldError(f"`query` must be a string, not {kind_of(query)}")
        if not query.strip():
            raise MissingFieldError("Missing or empty `query`")
        _require_number("top_n", self.top_n, Integral)
        _require_number("threshold", self.threshold, Real)
        _require_number("priority", self.priority, Integral)
        _require_number("timeout_seconds", self.timeout_seconds, Real)
        if self.top_n is not None and self.top_n < 1:
            raise InvalidFieldError(f"`top_n` is {self.top_n}; it must be at least 1")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InvalidFieldError(f"`threshold` is {self.threshold}; scores are from 0 to 1")
        if not 0 <= self.priority <= MOST_PRIORITY:
            raise InvalidFieldError(f"`priority` is {self.priority}; it is from 0 to 999")
        if self.timeout_seconds is not None and not 0 < self.timeout_seconds < math.inf:
            raise InvalidFieldError("`timeout_ms` must be more than 0")

    @property
    def n_held_bytes(self) -> int:
        """Memory of its query and documents, about."""
        return getsizeof(self.query) + sum(map(_held_bytes, self.documents))

    def texts(self) -> list[str]:
        """The text of each document, cut to `max_document_characters` where it may be cut.

        Raises:
            InvalidFieldError: a document has none.
        """
        texts = [document_text(document, index) for index, document in enumerate(self.documents)]
        most = self.max_document_characters
        if most is None or not self.truncate:
            return texts
        is_left = self.truncation_side == "left"
        return [text[max(0, len(text) - most) :] if is_left else text[:most] for text in texts]

    def is_beyond_characters(self, index: int) -> bool:
        """Whether a document has more characters than `max_document_characters`."""
        most = self.max_document_characters
        return most is not None and len(document_text(self.documents[index], index)) > most


@dataclass(frozen=True, slots=True)
class PairScore:
    """What became of a pair, from the scheduler or the cache to the answer.

    Attributes:
        logit: Float32; NaN without one.
        n_tokens: Of the pair, as the model read it; 0 without a logit.
        truncated: Whether text of the document was left out.
        query_truncated: Whether text of the query was.
        cached: Whether it has a logit for which nothing was computed.
        model: Whose logit it is.
        failure: Why there is no logit; in a cascade, why there is only the first model's.
    """

    logit: float
    n_tokens: int
    truncated: bool
    query_truncated: bool = False
    cached: bool = False
    model: str | None = None
    failure: TamisError | None = None

    @classmethod
    def failed(cls, failure: TamisError) -> Self:
        """A pair without a logit."""
        return cls(math.nan, 0, truncated=False, failure=failure)

    @property
    def has_logit(self) -> bool:
        """Whether there is one."""
        return math.isfinite(self.logit)


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """What one query token found in a document (late interaction only).

    Attributes:
        query_token: The query token as it stands in the query.
        document_token: The document token nearest to it, as it stands in the document.
        document_span: Start and end of `document_token` in the document, in characters.
        similarity: Their cosine, averaged with those of neighbouring tokens, -1..1.
        share: The query token's weight in the score; shares of one query sum to 1.
    """

    query_token: str
    document_token: str
    document_span: tuple[int, int]
    similarity: float
    share: float


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document in its place.

    Attributes:
        index: Position in the request.
        document: The document as it was given.
        logit: Raw model output.
        score: Sigmoid of the logit, 0..1.
        explanation: Matches per query token, when asked for and the model can tell.
        scored_by: In a cascade the model whose logit it is; a first-stage one is on the second's
            scale.
        truncated: Whether the document was cut to fit.
        query_truncated: Whether the query was cut to fit: it may have half of `max_length`.
    """

    index: int
    document: Document
    logit: float
    score: float
    explanation: tuple[TokenMatch, ...] | None = None
    scored_by: str | None = None
    truncated: bool = False
    query_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost.

    Attributes:
        n_pairs: Pairs scored; in a cascade a document that both models read counts once.
        n_tokens: Tokens of all pairs, as the model reads them; in a cascade of both models.
        n_truncated: Documents that were cut to fit `max_length` of the model that scored them.
        n_cached: Pairs for which nothing was computed: scored before, for another caller at the
            same time, or in another place of the same request.
        query_truncated: Whether the query was cut to fit, for any of the pairs.
    """

    n_pairs: int
    n_tokens: int
    n_truncated: int
    n_cached: int = 0
    query_truncated: bool = False


@dataclass(frozen=True, slots=True)
class UnscoredDocument:
    """A document without a score, and why.

    Attributes:
        index: Position in the request.
        code: A stable name of the reason.
        reason: A sentence.
    """

    index: int
    document: Document
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class RerankResult:
    """The answer to a `RerankRequest`, best first.

    Attributes:
        logits: Of every document in the order given, whether it is shown or not; NaN without one.
        unscored: Documents without a score, in the order given; only where a part was enough.
        degraded: Whether there is less in it than was asked for.
    """

    model: str
    results: tuple[RankedDocument, ...]
    usage: Usage
    logits: tuple[float, ...] = ()
    unscored: tuple[UnscoredDocument, ...] = ()
    degraded: bool = False


def require_scored(scores: Iterable[PairScore]) -> None:
    """Refuse pairs of which one has failed.

    Raises:
        TamisError: why the first of those has.
    """
    for score in scores:
        if score.failure is not None:
            raise score.failure


def document_list(documents: Iterable[Document]) -> tuple[Document, ...]:
    """The documents of a caller who may have no types.

    Raises:
        InvalidFieldError: they are one document, or no documents at all.
    """
    given = cast("object", documents)
    if isinstance(given, str | Mapping):
        raise InvalidFieldError("`documents` is one document; give a list of them")
    if isinstance(given, bytes | bytearray) or not isinstance(given, Iterable):
        raise InvalidFieldError(f"`documents` must be a list of documents, not {kind_of(given)}")
    return tuple(documents)


def document_text(document: Document, index: int, *, name: str | None = None) -> str:
    """The text of a document.

    Args:
        document: As the caller gave it.
        index: Its position, for the message.
        name: What the message calls it instead: a line of a file.

    Raises:
        InvalidFieldError: it is neither a string nor a mapping whose `text` is a string.
    """
    named = name or f"document {index}"
    given = cast("object", document)
    text = document.get("text") if isinstance(document, Mapping) else given
    if isinstance(text, str):
        return text
    if not isinstance(document, Mapping):
        raise InvalidFieldError(
            f"{named} must be a string or an object with a `text`, not {kind_of(text)}"
        )
    if "text" not in document:
        raise InvalidFieldError(f"{named} has no `text`")
    raise InvalidFieldError(f"the `text` of {named} must be a string, not {kind_of(text)}")


def kind_of(value: object) -> str:
    """What a value that should be another is, in words that hold for JSON and for Python."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else type(value).__name__


def _held_bytes(document: Document) -> int:
    if isinstance(document, str):
        return getsizeof(document)
    sized = [value for value in document.values() if isinstance(value, Sized)]
    return BYTES_OF_AN_OBJECT + sum(
        BYTES_OF_A_FIELD + (getsizeof(value) if isinstance(value, str) else len(value))
        for value in sized
    )


def _require_number(name: str, value: object, kind: type[Integral] | type[Real]) -> None:
    """Refuse an option that is no number; None leaves it out, and a boolean is none.

    Raises:
        InvalidFieldError: it is something else.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        wanted = "a whole number" if kind is Integral else "a number"
        shown = f"{value!r:.40}" if isinstance(value, str | bool | float) else kind_of(value)
        raise InvalidFieldError(f"`{name}` must be {wanted}, not {shown}")
