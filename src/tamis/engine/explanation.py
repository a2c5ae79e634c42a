"""Which words of a document answered which words of the query (late interaction only)."""

from tamis.engine.loading import LoadedModel
from tamis.engine.pairs import EncodedPair
from tamis.types import TokenMatch


def explain_pair(
    model: LoadedModel, query: str, document: str, pair: EncodedPair
) -> tuple[TokenMatch, ...] | None:
    """One match for each query token that has characters, in the query's order.

    Pieces that only mark the beginning of a word are left out; shares sum to 1 over the others.

    Returns:
        None where the model reads both texts together, or one of them has no text tokens.
    """
    matches = model.backend.explain(pair)
    if matches is None:
        return None
    query_spans = model.tokenizer.spans(query, len(matches.shares))
    document_spans = model.tokenizer.spans(document, len(pair.sequences[-1].token_ids))
    shown = [n for n, (start, end) in enumerate(query_spans) if end > start]
    total = float(matches.shares[shown].sum())
    return tuple(
        TokenMatch(
            query_token=query[slice(*query_spans[n])],
            document_token=document[slice(*document_spans[matches.nearest[n]])],
            document_span=document_spans[matches.nearest[n]],
            similarity=float(matches.similarities[n]),
            share=float(matches.shares[n]) / total,
        )
        for n in shown
    )
