"""Late interaction: the features of a pair (MaxSim, in phrases, pooled cosine), its logit.

MaxSim as in ColBERT (Khattab and Zaharia, 2020): for each query token the best cosine among the
document's tokens, here averaged with weights: the query tokens' information, times what the model
has learned of their states. In phrases: a token's similarity is averaged with its neighbors' (see
`MaxSimHead`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tamis.engine.heads.capitals import lower_capitals
from tamis.engine.heads.similarities import in_phrases
from training.base import Floats
from training.folder import (
    PHRASE_WEIGHT,
    Head,
    read_importance,
    read_projection,
    read_scores,
    read_tokenizer,
)
from training.runtime import TokenEncoder

QUERY_PREFIX = "query:"
DOCUMENT_PREFIX = "passage:"
MAX_LENGTH_TOKENS = 512
MAXSIM, IN_PHRASES, COSINE = range(3)
N_FEATURES = 3

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SideStates:
    """What is kept of one text: unit token states, projected; unit pooled state; tokens' ids."""

    tokens: Floats  # (n_tokens, hidden)
    pooled: Floats  # (hidden,)
    ids: list[int]


class PairScorer:
    """Scores (query, document) pairs of texts with one model folder."""

    n_features = N_FEATURES

    def __init__(self, folder: Path, compute_type: str, work: Path) -> None:
        self._encoder = TokenEncoder(folder, compute_type, work)
        self._tokenizer = read_tokenizer(folder)
        self.weights = token_weights(read_scores(folder))
        self.importance = read_importance(folder)
        self.projection = read_projection(folder)

    def features(
        self, queries: list[str], documents: list[str], pairs: Pairs, label: str
    ) -> Floats:
        """Returns (n_pairs, n_features): the features of each pair of indices (see `match`)."""
        sides = self.encode_queries(queries, f"{label} queries")
        of_document: dict[int, list[int]] = {}
        for number, (_, document) in enumerate(pairs):
            of_document.setdefault(document, []).append(number)
        used = sorted(of_document)
        sequences, n_prefix = self._sequences(
            [documents[i] for i in used], DOCUMENT_PREFIX, MAX_LENGTH_TOKENS
        )
        found = np.zeros((len(pairs), self.n_features), dtype=np.float32)
        for place, states in self._encoder.stream(sequences, label):
            answer = side_states(states, sequences[place], n_prefix, self.projection)
            numbers = of_document[used[place]]
            asked = [sides[pairs[number][0]] for number in numbers]
            found[numbers] = self.match(asked, answer)
        return found

    def encode_queries(self, texts: list[str], label: str) -> list[SideStates]:
        """Encodes queries, in the order given."""
        return self.encode(texts, QUERY_PREFIX, MAX_LENGTH_TOKENS // 2, label)

    def encode_documents(self, texts: list[str], label: str) -> list[SideStates]:
        """Encodes documents, in the order given."""
        return self.encode(texts, DOCUMENT_PREFIX, MAX_LENGTH_TOKENS, label)

    def match(self, queries: list[SideStates], document: SideStates) -> Floats:
        """Features of several queries with one document (see `match`)."""
        return match(queries, document, self.weights, self.importance)

    def encode(
        self, texts: list[str], prefix: str, max_tokens: int, label: str
    ) -> list[SideStates]:
        """Encodes texts one side at a time, in the order given."""
        sequences, n_prefix = self._sequences(texts, prefix, max_tokens)
        sides: dict[int, SideStates] = {}
        for index, states in self._encoder.stream(sequences, label):
            sides[index] = side_states(states, sequences[index], n_prefix, self.projection)
        return [sides[index] for index in range(len(texts))]

    def length(self, text: str) -> int:
        """The number of tokens of a text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _sequences(
        self, texts: list[str], prefix: str, max_tokens: int
    ) -> tuple[list[list[int]], int]:
        read = list(map(lower_capitals, texts))
        return id_sequences(self._tokenizer, read, prefix, max_tokens)


def id_sequences(
    tokenizer: Tokenizer, texts: list[str], prefix: str, max_tokens: int
) -> tuple[list[list[int]], int]:
    """`<s>` prefix text `</s>` as ids, cut to `max_tokens`; and the prefix's length in tokens."""
    start: list[int] = tokenizer.encode(prefix, add_special_tokens=False).ids
    room = max_tokens - len(start) - 2
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [[0, *start, *encoding.ids[:room], 2] for encoding in encoded], len(start)


def token_weights(scores: Floats) -> Floats:
    """Minus each piece's log-probability, by id, (n_pieces,); `<unk>` counts as the rarest one."""
    weights = np.maximum(-scores, np.float32(1e-6))
    weights[3] = weights.max()
    return weights


def side_states(
    states: Floats, ids: list[int], n_prefix: int, projection: Floats | None
) -> SideStates:
    """Keeps the text's own tokens, projected, and the mean of all tokens; both normalized."""
    first = 1 + n_prefix
    text = states[first:-1]
    tokens = unit(text if projection is None else text @ projection)
    return SideStates(tokens, unit(states.mean(axis=0)), ids[first:-1])


def unit(vectors: Floats) -> Floats:
    """Divides by the length along the last axis."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    divided: Floats = vectors / np.maximum(length, 1e-12)
    return divided


def match(
    queries: list[SideStates], document: SideStates, weights: Floats, importance: Floats
) -> Floats:
    """Features of several queries with one document, (n_queries, n_features).

    They are MaxSim, the same in phrases, and the pooled cosine.
    """
    pooled = np.stack([query.pooled for query in queries]) @ document.pooled
    maxsim = np.zeros((len(queries), 2), dtype=np.float32)
    for place, query in enumerate(queries):
        if query.ids and document.ids:
            cosines = query.tokens @ document.tokens.T  # (n_query_tokens, n_document_tokens)
            averages = in_phrases(cosines, np.array([0]), PHRASE_WEIGHT)
            best = np.stack([cosines.max(axis=1), averages.max(axis=1)])
            maxsim[place] = best @ shares_of(query, weights, importance)
    return np.column_stack([maxsim, pooled])


def shares_of(query: SideStates, weights: Floats, importance: Floats) -> Floats:
    """What each token of a query counts, (n_query_tokens,); their sum is 1."""
    found = weights[query.ids] * np.exp(query.tokens @ importance)
    shares: Floats = found / found.sum()
    return shares


def logits(features: Floats, head: Head) -> Floats:
    """The head's logit of each pair, (n_pairs,).

    Raises:
        ValueError: the features are not in phrases of the head's weight.
    """
    if head.phrase_weight != PHRASE_WEIGHT:
        raise ValueError(f"features are of phrase_weight {PHRASE_WEIGHT}, not {head.phrase_weight}")
    weight = head.pooled_weight
    blend = (features[:, IN_PHRASES] + weight * features[:, COSINE]) / (1 + weight)
    return np.asarray(head.scale * (blend - head.offset), dtype=np.float32)


def sigmoid(values: Floats) -> NDArray[np.float64]:
    """`1 / (1 + exp(-x))`."""
    squashed: NDArray[np.float64] = 1 / (1 + np.exp(-values.astype(np.float64)))
    return squashed
