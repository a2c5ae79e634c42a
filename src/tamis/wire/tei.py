"""The dialect of Hugging Face's text-embeddings-inference (TEI): `texts` in, a bare list out."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from tamis.errors import (
    DeadlineExceededError,
    InferenceError,
    MissingFieldError,
    OutOfMemoryError,
    QueueFullError,
    UnavailableError,
)
from tamis.types import RankedDocument, RerankRequest, RerankResult, document_text
from tamis.wire.dialect import (
    Dialect,
    Failure,
    RawBody,
    RerankEndpoint,
    Side,
    convert,
    peek,
    require,
    side_of,
)
from tamis.wire.fields import Fields


class TeiRequest(msgspec.Struct):
    """A request body."""

    query: Annotated[str, msgspec.Meta(min_length=1)]
    texts: Annotated[list[str], msgspec.Meta(min_length=1)]
    raw_scores: Annotated[
        bool | None, msgspec.Meta(description="Logits instead of 0..1 (default false).")
    ] = None
    return_text: Annotated[
        bool | None, msgspec.Meta(description="Send texts back (default false).")
    ] = None
    truncate: Annotated[
        bool | None, msgspec.Meta(description="False refuses too long texts (default true).")
    ] = None
    truncation_direction: Side | None = None
    threshold: (
        Annotated[
            float,
            msgspec.Meta(
                description="Not TEI's own: lowest score (0..1) that comes back.", ge=0, le=1
            ),
        ]
        | None
    ) = None
    top_n: (
        Annotated[int, msgspec.Meta(description="Not TEI's own, but LiteLLM sends it.", ge=0)]
        | None
    ) = None


class TeiResult(msgspec.Struct, omit_defaults=True):
    """A text in its place; without `text` unless it was asked for."""

    index: int
    score: float
    text: str | None = None


class TeiError(msgspec.Struct):
    """TEI's error body."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


@dataclass(frozen=True, slots=True)
class TeiCall:
    """One decoded request."""

    request: RerankRequest
    raw_scores: bool
    return_text: bool
    warnings: tuple[str, ...] = ()

    def encode(self, result: RerankResult, request_id: str) -> object:
        """Encode the answer as a list, as TEI's clients read it."""
        return [self._result(ranked) for ranked in result.results]

    def _result(self, ranked: RankedDocument) -> TeiResult:
        score = ranked.logit if self.raw_scores else ranked.score
        text = document_text(ranked.document, ranked.index) if self.return_text else None
        return TeiResult(ranked.index, score, text)


FIELDS = Fields(
    TeiRequest.__struct_fields__,
    renamed={
        "documents": "texts",
        "return_documents": "return_text",
        "truncation_side": "truncation_direction",
    },
)


def decode(body: RawBody) -> TeiCall:
    """Read a body.

    Raises:
        RequestError: a field is missing, or has a value that it cannot have.
    """
    body, warnings = FIELDS.read(body)
    require(body, "query", "texts")
    asked = convert(body, TeiRequest)
    request = RerankRequest(
        query=asked.query,
        documents=tuple(asked.texts),
        top_n=asked.top_n or None,
        truncate=asked.truncate is not False,
        truncation_side=side_of(asked.truncation_direction),
        threshold=asked.threshold,
    )
    return TeiCall(
        request,
        raw_scores=asked.raw_scores is True,
        return_text=asked.return_text is True,
        warnings=warnings,
    )


def encode_error(failure: Failure) -> tuple[int, object]:
    """Status and body of an error; a failing model is 424, as TEI's clients know it."""
    error = failure.error
    if isinstance(error, InferenceError):
        return 424, TeiError(str(error), "Backend")
    if isinstance(error, OutOfMemoryError):
        return failure.status, TeiError(str(error), "Backend")
    if isinstance(error, QueueFullError | DeadlineExceededError):
        return failure.status, TeiError(str(error), "Overloaded")
    if isinstance(error, UnavailableError):
        return failure.status, TeiError(str(error), "Unhealthy")
    empty = isinstance(error, MissingFieldError)
    return failure.status, TeiError(str(error), "Empty" if empty else "Validation")


def _has_texts(body: RawBody) -> bool:
    return peek(body.get("texts")) is not None or ("texts" in body and "documents" not in body)


TEI = Dialect(
    "tei",
    endpoints=(
        RerankEndpoint(
            paths=("/rerank", "/v1/rerank"),
            sign="`texts` is that of text-embeddings-inference",
            recognizes=_has_texts,
            request=TeiRequest,
            answer=list[TeiResult],
            decode=decode,
        ),
    ),
    error=TeiError,
    encode_error=encode_error,
)
