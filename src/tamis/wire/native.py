"""tamis's own dialect: the tutorial's fields and what they left open.

`POST /rerank` with `documents` and no `model`. `logit` and `score` are the raw logit, `score` as
clients of the tutorial read it; `relevance_score` is its sigmoid, which Python calls `score`.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from tamis.types import RankedDocument, RerankRequest, RerankResult, UnscoredDocument
from tamis.wire.dialect import (
    Dialect,
    Failure,
    RawBody,
    Reason,
    RerankEndpoint,
    SharedFields,
    convert,
    require,
    sent_documents,
    warnings_of,
)
from tamis.wire.fields import Fields


class NativeRequest(SharedFields, kw_only=True):
    """A request body."""

    query: Annotated[str, msgspec.Meta(description="The question.", min_length=1)]
    documents: Annotated[
        list[str | dict[str, msgspec.Raw]],
        msgspec.Meta(
            description="Texts, or objects with a `text`; objects come back untouched.",
            min_length=1,
        ),
    ]
    top_n: (
        Annotated[
            int, msgspec.Meta(description="How many of the best come back; all when absent.", ge=0)
        ]
        | None
    ) = None
    return_documents: Annotated[
        bool | None, msgspec.Meta(description="Send documents back (default true).")
    ] = None


class NativeResult(msgspec.Struct, omit_defaults=True):
    """A document in its place."""

    index: int
    logit: Annotated[
        float | None, msgspec.Meta(description="Raw output of the model; null without one.")
    ]
    score: Annotated[
        float | None, msgspec.Meta(description="The logit, as clients of the tutorial read it.")
    ]
    relevance_score: Annotated[
        float | None, msgspec.Meta(description="Sigmoid of the logit, 0..1.")
    ]
    document: Annotated[
        str | dict[str, Any] | None, msgspec.Meta(description="As it was given.")
    ] = None
    scored_by: Annotated[
        str | None, msgspec.Meta(description="In a cascade, the model whose score it is.")
    ] = None
    truncated: Annotated[
        bool, msgspec.Meta(description="True where the document was cut to fit.")
    ] = False
    query_truncated: Annotated[
        bool, msgspec.Meta(description="True where the query was cut, half of max_length is its.")
    ] = False
    error: Annotated[
        Reason | None, msgspec.Meta(description="Why it has no score (`partial` alone).")
    ] = None


class NativeUsage(msgspec.Struct, omit_defaults=True):
    """What the request cost."""

    pairs: int
    total_tokens: int
    truncated_documents: Annotated[int, msgspec.Meta(description="Documents that were cut to fit.")]
    cached_pairs: Annotated[
        int, msgspec.Meta(description="Pairs that cost nothing: their scores were known.")
    ]
    query_truncated: Annotated[
        bool, msgspec.Meta(description="True where the query was cut to fit.")
    ] = False


class NativeAnswer(msgspec.Struct, omit_defaults=True):
    """Best first; documents without a score follow in the order given."""

    query: str
    model: str
    results: list[NativeResult]
    usage: NativeUsage
    degraded: Annotated[
        bool, msgspec.Meta(description="True where there is less in it than was asked for.")
    ] = False
    warnings: Annotated[
        list[str], msgspec.Meta(description="What was understood otherwise than it was sent.")
    ] = []


class NativeError(msgspec.Struct):
    """What went wrong."""

    error: Annotated[str, msgspec.Meta(description="A sentence.")]
    code: Annotated[str, msgspec.Meta(description="A stable name of the condition.")]
    request_id: str


@dataclass(frozen=True, slots=True)
class NativeCall:
    """One decoded request."""

    request: RerankRequest
    return_documents: bool
    warnings: tuple[str, ...] = ()

    def encode(self, result: RerankResult, request_id: str) -> object:
        """Encode the answer with logits, scores and usage."""
        usage = result.usage
        return NativeAnswer(
            query=self.request.query,
            model=result.model,
            results=[
                *(self._result(ranked) for ranked in result.results),
                *(self._unscored(document) for document in result.unscored),
            ],
            usage=NativeUsage(
                usage.n_pairs,
                usage.n_tokens,
                usage.n_truncated,
                usage.n_cached,
                usage.query_truncated,
            ),
            degraded=result.degraded,
            warnings=warnings_of(self.warnings, result),
        )

    def _result(self, ranked: RankedDocument) -> NativeResult:
        document: Any = ranked.document if self.return_documents else None
        return NativeResult(
            ranked.index,
            ranked.logit,
            ranked.logit,
            ranked.score,
            document,
            ranked.scored_by,
            truncated=ranked.truncated,
            query_truncated=ranked.query_truncated,
        )

    def _unscored(self, unscored: UnscoredDocument) -> NativeResult:
        document: Any = unscored.document if self.return_documents else None
        reason = Reason(unscored.code, unscored.reason)
        return NativeResult(unscored.index, None, None, None, document, error=reason)


FIELDS = Fields(NativeRequest.__struct_fields__)


def decode(body: RawBody) -> NativeCall:
    """Read a body.

    Raises:
        RequestError: a field is missing, or has a value that it cannot have.
    """
    body, warnings = FIELDS.read(body)
    require(body, "query", "documents")
    asked = convert(body, NativeRequest)
    documents = sent_documents(asked.documents, whole=asked.return_documents is not False)
    request = asked.rerank_request(asked.query, documents, asked.top_n)
    return NativeCall(
        request, return_documents=asked.return_documents is not False, warnings=warnings
    )


def encode_error(failure: Failure) -> tuple[int, object]:
    """Status and body of an error."""
    error = failure.error
    return failure.status, NativeError(str(error), error.code, failure.request_id)


NATIVE = Dialect(
    "native",
    endpoints=(
        RerankEndpoint(
            paths=("/rerank", "/v1/rerank"),
            sign="`documents` alone is tamis's own",
            request=NativeRequest,
            answer=NativeAnswer,
            decode=decode,
        ),
    ),
    error=NativeError,
    encode_error=encode_error,
)
