"""Encoder outputs -> logits. Two heads, in numpy, the same for every runtime."""

from dataclasses import dataclass
from math import isqrt
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tamis.engine.checkpoint import Checkpoint, MaxSimOptions
from tamis.engine.collate import PackedBatch
from tamis.engine.pairs import Logits
from tamis.engine.templates import SeparateTemplate
from tamis.engine.weights import open_weights
from tamis.errors import UnsupportedModelError

Matrix = NDArray[np.float32]

_SERIAL_MULTIPLICATIONS = 4 * 65536
"""A product of so many stays in the caller's thread (OpenBLAS's GEMM_MULTITHREAD_THRESHOLD)."""


class Head(Protocol):
    """What stands on an encoder."""

    @property
    def reads_tokens(self) -> bool:
        """True: it reads every token's state. False: the pooled first token's."""
        ...

    def logits(self, outputs: Matrix, batch: PackedBatch) -> Logits:
        """One logit for each pair of the batch."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationHead:
    """Query and document read together: one linear layer on the pooled first token.

    The layer before it (dense and tanh) belongs to the runtime, which pools.
    """

    weight: Matrix
    bias: float
    reads_tokens: bool = False

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> Self:
        """The output layer of a checkpoint.

        Raises:
            UnsupportedModelError: it makes another number of logits than one.
        """
        weights = open_weights(checkpoint)
        weight = weights.array(f"{checkpoint.family.output}.weight")  # (n_labels, hidden)
        bias = weights.array(f"{checkpoint.family.output}.bias")
        if len(weight) != 1:
            raise UnsupportedModelError(
                f"{checkpoint.folder} has {len(weight)} labels; "
                "a reranker has one (the relevance logit)"
            )
        return cls(weight[0], float(bias[0]))

    def logits(self, outputs: Matrix, batch: PackedBatch) -> Logits:
        """Logits of pooled states (n_pairs, hidden)."""
        return (outputs @ self.weight + np.float32(self.bias)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Matches:
    """For one pair: each query token's nearest document token.

    Attributes:
        nearest: Position of that token among the document's text tokens, (n_query_tokens,).
        similarities: Their cosines, those of the tokens beside them counted in, (n_query_tokens,).
        shares: Weights of the query tokens, summing to 1, (n_query_tokens,).
    """

    nearest: NDArray[np.intp]
    similarities: Matrix
    shares: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class MaxSimHead:
    """Query and document read apart: late interaction (ColBERT, arXiv:2004.12832).

    Each query token takes its best similarity among the document's tokens; their mean, weighted
    by how rare the vocabulary says the tokens are and by what was learned of their states, may
    be blended with the cosine of the two mean-pooled sequences:
    logit = scale * ((maxsim + pooled_weight * cosine) / (1 + pooled_weight) - offset).
    Nothing in it depends on the document's length, so that documents of different lengths are on
    one scale.

    The similarity of two tokens is their cosine, averaged with the cosines of the tokens before
    both and of those behind both, which count `phrase_weight` each: tokens found in the query's
    order count more than the same ones apart. Where the query or the document ends, the cosine
    itself stands for the missing one.

    A model may have learned a projection of the states for this; the pooled cosine is of the
    states as the encoder gives them.

    Attributes:
        token_weights: Minus each piece's unigram log-probability, (vocabulary,).
        importance: A query token's weight is multiplied by exp(importance . state), its state
            projected and taken to length 1, (hidden,).
        projection: Token states are multiplied by it before they are matched, (hidden, hidden);
            None leaves them as they are.
        query_skip: Tokens before the query's text (start token and prefix).
        document_skip: Tokens before the document's text.
        suffix: Tokens after the text, of either.
    """

    token_weights: Matrix
    importance: Matrix
    projection: Matrix | None
    query_skip: int
    document_skip: int
    suffix: int
    pooled_weight: float
    phrase_weight: float
    scale: float
    offset: float
    reads_tokens: bool = True

    @classmethod
    def read(
        cls,
        options: MaxSimOptions,
        template: SeparateTemplate,
        unigram_scores: Matrix,
        importance: Matrix,
        projection: Matrix | None,
    ) -> Self:
        """A head from its options, its template, each piece's log-probability, what it learned."""
        return cls(
            token_weights=-unigram_scores,
            importance=importance,
            projection=projection,
            query_skip=len(template.query_prefix.token_ids),
            document_skip=len(template.document_prefix.token_ids),
            suffix=len(template.suffix.token_ids),
            pooled_weight=options.pooled_weight,
            phrase_weight=options.phrase_weight,
            scale=options.scale,
            offset=options.offset,
        )

    def logits(self, outputs: Matrix, batch: PackedBatch) -> Logits:
        """Logits of token states (n_tokens, hidden)."""
        states = self._matched_states(outputs)  # (n_tokens, hidden)
        queries, documents = batch.pair_sequences.T  # (n_pairs,) each
        maxsim = np.empty(len(queries), dtype=np.float32)
        for query in np.unique(queries):
            pairs = np.flatnonzero(queries == query)
            maxsim[pairs] = self._maxsim(states, batch, int(query), documents[pairs])
        blend = self._with_cosine(maxsim, outputs, batch) if self.pooled_weight else maxsim
        logits: Logits = (self.scale * (blend - self.offset)).astype(np.float32)
        return logits

    def matches(self, outputs: Matrix, batch: PackedBatch, pair: int) -> Matches | None:
        """What each query token of one pair found; None where either has no text."""
        states = self._matched_states(outputs)
        query, document = batch.pair_sequences[pair]
        query_text = self._query_text(batch, query)
        document_text = self._document_text(batch, document)
        if query_text.start == query_text.stop or document_text.start == document_text.stop:
            return None
        tokens = states[document_text]
        similarities = self._similarities(states[query_text], tokens, np.array([0]))
        return Matches(
            nearest=similarities.argmax(axis=1),
            similarities=similarities.max(axis=1),
            shares=self._shares(states, batch, query),
        )

    def _matched_states(self, outputs: Matrix) -> Matrix:
        """Token states as they are matched: projected, of length 1."""
        return _normalized(
            outputs if self.projection is None else project(outputs, self.projection)
        )

    def _with_cosine(self, maxsim: Matrix, outputs: Matrix, batch: PackedBatch) -> Matrix:
        """Blended with the cosine of the mean-pooled sequences, (n_pairs,)."""
        pooled = _normalized(_mean_states(outputs, batch))  # (n_sequences, hidden)
        queries, documents = batch.pair_sequences.T  # (n_pairs,) each
        cosine = np.einsum("ph,ph->p", pooled[queries], pooled[documents])
        blend: Matrix = (maxsim + self.pooled_weight * cosine) / (1 + self.pooled_weight)
        return blend

    def _maxsim(
        self, states: Matrix, batch: PackedBatch, query: int, documents: NDArray[np.intp]
    ) -> Matrix:
        """Late interaction of one query with some documents; 0 where either has no text."""
        texts = [self._document_text(batch, document) for document in documents]
        filled = [row for row, text in enumerate(texts) if text.stop > text.start]
        result = np.zeros(len(documents), dtype=np.float32)
        shares = self._shares(states, batch, query)
        if not filled or not len(shares):
            return result
        tokens = np.concatenate([states[texts[row]] for row in filled])  # (n_text_tokens, hidden)
        starts = np.cumsum([0] + [texts[row].stop - texts[row].start for row in filled[:-1]])
        similarities = self._similarities(states[self._query_text(batch, query)], tokens, starts)
        best = np.maximum.reduceat(similarities, starts, axis=1)  # (n_query_tokens, n_filled)
        result[filled] = shares @ best
        return result

    def _similarities(self, query: Matrix, documents: Matrix, starts: NDArray[np.intp]) -> Matrix:
        """Of a query's tokens and those of documents, end to end, (n_query_tokens, n_tokens)."""
        cosines = _products(query, documents)
        return in_phrases(cosines, starts, self.phrase_weight) if self.phrase_weight else cosines

    def _shares(self, states: Matrix, batch: PackedBatch, query: int) -> Matrix:
        text = self._query_text(batch, query)
        weights: Matrix = self.token_weights[batch.token_ids[text]]
        weights = weights * np.exp(states[text] @ self.importance)
        return weights / weights.sum() if len(weights) else weights

    def _query_text(self, batch: PackedBatch, sequence: int) -> slice:
        return self._text(batch, sequence, self.query_skip)

    def _document_text(self, batch: PackedBatch, sequence: int) -> slice:
        return self._text(batch, sequence, self.document_skip)

    def _text(self, batch: PackedBatch, sequence: int, skip: int) -> slice:
        start, end = batch.cu_seqlens[sequence], batch.cu_seqlens[sequence + 1]
        return slice(int(start) + skip, int(end) - self.suffix)


def _products(left: Matrix, right: Matrix) -> Matrix:
    """`left @ right.T`, (n_left, n_right), in parts that are small enough for one thread.

    Threads of numpy's BLAS wait actively when a product is done, and would take cores from the
    encoder, which is at the next batch by then.
    """
    n_left, hidden = left.shape
    step = max(1, _SERIAL_MULTIPLICATIONS // max(1, n_left * hidden))
    products = np.empty((n_left, len(right)), dtype=np.float32)
    for start in range(0, len(right), step):
        products[:, start : start + step] = left @ right[start : start + step].T
    return products


def project(states: Matrix, projection: Matrix) -> Matrix:
    """`states @ projection`, (n_tokens, hidden), in the caller's thread alone (see `_products`)."""
    n_tokens, hidden = states.shape
    side = max(1, isqrt(_SERIAL_MULTIPLICATIONS // hidden))
    n_rows, n_columns = -(-n_tokens // side), -(-hidden // side)
    rows = np.zeros((n_rows * side, hidden), dtype=np.float32)
    rows[:n_tokens] = states
    columns = np.zeros((hidden, n_columns * side), dtype=np.float32)
    columns[:, :hidden] = projection
    blocks = rows.reshape(n_rows, 1, side, hidden) @ np.ascontiguousarray(
        columns.reshape(hidden, n_columns, side).transpose(1, 0, 2)
    )  # (n_rows, n_columns, side, side)
    joined: Matrix = blocks.transpose(0, 2, 1, 3).reshape(n_rows * side, n_columns * side)
    return joined[:n_tokens, :hidden]


def in_phrases(cosines: Matrix, starts: NDArray[np.intp], weight: float) -> Matrix:
    """Each cosine averaged with those of the tokens before both and of the tokens behind both.

    Where a query or a document ends, the cosine itself stands for the missing one.

    Args:
        cosines: Of a query's tokens and those of documents, end to end, (n_query_tokens, n_tokens).
        starts: Where each document starts, (n_documents,).
        weight: Of each neighbor; the cosine itself counts 1.
    """
    before = cosines.copy()
    before[1:, 1:] = cosines[:-1, :-1]
    before[1:, starts] = cosines[1:, starts]
    ends = np.append(starts[1:], cosines.shape[1]) - 1
    behind = cosines.copy()
    behind[:-1, :-1] = cosines[1:, 1:]
    behind[:-1, ends] = cosines[:-1, ends]
    averages = (cosines + weight * (before + behind)) / (1 + 2 * weight)
    return averages.astype(np.float32, copy=False)


def _mean_states(outputs: Matrix, batch: PackedBatch) -> Matrix:
    sums = np.add.reduceat(outputs, batch.cu_seqlens[:-1], axis=0)
    return (sums / batch.lengths[:, None]).astype(np.float32)


def _normalized(states: Matrix) -> Matrix:
    norms: Matrix = np.linalg.norm(states, axis=-1, keepdims=True)
    return states / norms
