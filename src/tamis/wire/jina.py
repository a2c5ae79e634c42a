"""Jina's and vLLM's dialect: `documents` and `model` (Haystack, LiteLLM, Dify, Open WebUI …)."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from tamis.types import (
    RankedDocument,
    RerankRequest,
    RerankResult,
    UnscoredDocument,
    document_text,
)
from tamis.wire.dialect import (
    Dialect,
    Failure,
    RawBody,
    Reason,
    RerankEndpoint,
    SharedFields,
    convert,
    peek,
    require,
    sent_documents,
    warnings_of,
)
from tamis.wire.fields import Fields


class JinaRequest(SharedFields, kw_only=True):
    """A request body."""

    model: Annotated[
        str, msgspec.Meta(description="Any name: this server serves one model and says which.")
    ]
    query: Annotated[str, msgspec.Meta(min_length=1)]
    documents: Annotated[list[str | dict[str, msgspec.Raw]], msgspec.Meta(min_length=1)]
    top_n: (
        Annotated[
            int,
            msgspec.Meta(description="How many of the best come back; 0 or null for all.", ge=0),
        ]
        | None
    ) = None
    return_documents: Annotated[
        bool | None, msgspec.Meta(description="Send documents back (default false).")
    ] = None


class JinaDocument(msgspec.Struct):
    """A document as it comes back."""

    text: str


class JinaResult(msgspec.Struct, omit_defaults=True):
    """A document in its place; without `document` unless it was asked for."""

    index: int
    relevance_score: float
    document: JinaDocument | None = None
    error: Annotated[
        Reason | None,
        msgspec.Meta(description="Why it has no score, and 0 stands for it (`partial` alone)."),
    ] = None


class JinaMeta(msgspec.Struct):
    """Cohere's and Xinference's place for warnings."""

    warnings: list[str]


class JinaUsage(msgspec.Struct, omit_defaults=True):
    """Tokens of all pairs."""

    prompt_tokens: int
    total_tokens: int
    cached_pairs: Annotated[
        int, msgspec.Meta(description="Pairs that cost nothing: their scores were known.")
    ] = 0


class JinaAnswer(msgspec.Struct, omit_defaults=True):
    """Best first; documents without a score follow in the order given."""

    id: str
    object: str
    model: str
    usage: JinaUsage
    results: list[JinaResult]
    degraded: Annotated[
        bool, msgspec.Meta(description="True where there is less in it than was asked for.")
    ] = False
    meta: Annotated[JinaMeta | None, msgspec.Meta(description="Only where there are warnings.")] = (
        None
    )


class JinaErrorObject(msgspec.Struct):
    """vLLM's and Infinity's clients look for an object."""

    message: str
    type: str
    code: int


class JinaError(msgspec.Struct):
    """One body for all who speak this dialect: each client reads another field of it."""

    id: str
    message: str
    detail: str
    error: JinaErrorObject


@dataclass(frozen=True, slots=True)
class JinaCall:
    """One decoded request."""

    request: RerankRequest
    return_documents: bool
    warnings: tuple[str, ...] = ()

    def encode(self, result: RerankResult, request_id: str) -> object:
        """Encode the answer as clients of Jina and vLLM read it."""
        n_tokens = result.usage.n_tokens
        shown = [one for one in self.warnings if not one.startswith(_IN_THE_HEADER_ALONE)]
        warnings = warnings_of(tuple(shown), result)
        return JinaAnswer(
            id=request_id,
            object="rerank",
            model=result.model,
            usage=JinaUsage(n_tokens, n_tokens, result.usage.n_cached),
            results=[
                *(self._result(ranked) for ranked in result.results),
                *(self._unscored(document) for document in result.unscored),
            ],
            degraded=result.degraded,
            meta=JinaMeta(warnings) if warnings else None,
        )

    def _result(self, ranked: RankedDocument) -> JinaResult:
        if not self.return_documents:
            return JinaResult(ranked.index, ranked.score)
        text = document_text(ranked.document, ranked.index)
        return JinaResult(ranked.index, ranked.score, JinaDocument(text))

    def _unscored(self, unscored: UnscoredDocument) -> JinaResult:
        text = document_text(unscored.document, unscored.index)
        document = JinaDocument(text) if self.return_documents else None
        reason = Reason(unscored.code, unscored.reason)
        return JinaResult(unscored.index, 0.0, document, reason)


FIELDS = Fields(JinaRequest.__struct_fields__)

_IN_THE_HEADER_ALONE = "`instruction`"
"""LiteLLM sends it to every server of vLLM's kind; the body that it reads stays as it was."""


def decode(body: RawBody) -> JinaCall:
    """Read a body.

    Raises:
        RequestError: a field is missing, or has a value that it cannot have.
    """
    body, warnings = FIELDS.read(body)
    require(body, "query", "documents")
    asked = convert(body, JinaRequest)
    documents = sent_documents(asked.documents, whole=False)
    request = asked.rerank_request(asked.query, documents, asked.top_n)
    return JinaCall(request, return_documents=asked.return_documents is True, warnings=warnings)


def encode_error(failure: Failure) -> tuple[int, object]:
    """Status and body of an error."""
    message = str(failure.error)
    detail = JinaErrorObject(message, failure.error.code, failure.status)
    return failure.status, JinaError(failure.request_id, message, message, detail)


JINA = Dialect(
    "jina",
    endpoints=(
        RerankEndpoint(
            paths=("/rerank", "/v1/rerank"),
            sign="`documents` with a `model` is Jina's and vLLM's",
            recognizes=lambda body: peek(body.get("model")) is not None,
            request=JinaRequest,
            answer=JinaAnswer,
            decode=decode,
        ),
    ),
    error=JinaError,
    encode_error=encode_error,
)
