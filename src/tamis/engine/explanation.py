"""Which words of a document answered which words of the query (late interaction only)."""

from tamis.engine.loading import LoadedModel
from tamis.engine.pairs import EncodedPair
from tamis.types import TokenMatch


def explain_pair(
    model: LoadedModel, query: str, document: str, pair: EncodedPair
) -> tuple[TokenMatch, ...] | None:
    """One match for each query token, in the query's order.

    Returns:
        None where the model reads both texts together, or one of them has no text tokens.
    """
    matches = model.backend.explain(pair)
    if matches is None:
        return None
    query_spans = model.tokenizer.spans(query, len(matches.shares))
    document_spans = model.tokenizer.spans(document, len(pair.sequences[-1].token_ids))
    return tuple(
        TokenMatch(
            query_token=query[slice(*query_span)],
            document_token=document[slice(*document_spans[nearest])],
            document_span=document_spans[nearest],
            similarity=float(similarity),
            share=float(share),
        )
        for query_span, nearest, similarity, share in zip(
            query_spans, matches.nearest, matches.similarities, matches.shares, strict=True
        )
    )
