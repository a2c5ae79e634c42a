"""Query and document read apart: late interaction of their tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tamis.engine.checkpoint import Checkpoint, weight_files
from tamis.engine.collate import PackedBatch
from tamis.engine.heads.capitals import lower_capitals
from tamis.engine.heads.head import Matches, Matrix
from tamis.engine.heads.similarities import in_phrases, normalized, products, project
from tamis.engine.pairs import Logits
from tamis.engine.templates import SeparateTemplate, read_separate_template
from tamis.engine.tokenization import PairTokenizer, read_definition, special_ids
from tamis.engine.weights import Weights
from tamis.errors import UnsupportedModelError

UNIGRAM_SCORES = "unigram_scores"
"""The tensor of a converted model that holds its vocabulary's log-probabilities, (vocabulary,)."""
IMPORTANCE = "maxsim.importance"
"""The tensor of a model that has learned which query tokens count, (hidden,)."""
PROJECTION = "maxsim.projection"
"""The tensor by which the states that are matched are multiplied, (hidden, hidden)."""


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
        options: "MaxSimOptions",
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
        return normalized(outputs if self.projection is None else project(outputs, self.projection))

    def _with_cosine(self, maxsim: Matrix, outputs: Matrix, batch: PackedBatch) -> Matrix:
        """Blended with the cosine of the mean-pooled sequences, (n_pairs,)."""
        pooled = normalized(_mean_states(outputs, batch))  # (n_sequences, hidden)
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
        cosines = products(query, documents)
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


class MaxSimOptions(msgspec.Struct, frozen=True, tag_field="type", tag="maxsim"):
    """The head as `tamis.json` describes it.

    Attributes:
        lower_capitals: Whether words in capitals are read in lower case (`capitals.py`).
        phrase_weight: 0: each token is matched by itself.
        has_importance: Whether the weights have the tensor `maxsim.importance`.
        has_projection: Whether the weights have the tensor `maxsim.projection`.
    """

    kind: ClassVar[str] = "maxsim"
    reads_tokens: ClassVar[bool] = True

    query_prefix: str
    document_prefix: str
    pooled_weight: Annotated[float, msgspec.Meta(ge=0)]
    scale: float
    offset: float
    lower_capitals: bool = False
    phrase_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    has_importance: bool = False
    has_projection: bool = False

    def require_fit(self, checkpoint: Checkpoint) -> None:
        """Any encoder will do."""

    def open(
        self, checkpoint: Checkpoint, text: Tokenizer, *, max_length: int
    ) -> tuple[PairTokenizer, MaxSimHead]:
        """Query and document behind their prefixes."""
        template = read_separate_template(
            text, query_prefix=self.query_prefix, document_prefix=self.document_prefix
        )
        normalize = lower_capitals if self.lower_capitals else str
        tokenizer = PairTokenizer(text, template, max_length=max_length, normalize=normalize)
        head = MaxSimHead.read(
            self,
            template,
            _stored_scores(checkpoint),
            self._importance(checkpoint),
            self._projection(checkpoint),
        )
        return tokenizer, head

    def converted_tensors(
        self, checkpoint: Checkpoint, weights: Weights, definition: Mapping[str, Any]
    ) -> dict[str, Matrix]:
        """What was learned, and the vocabulary's log-probabilities, which tokenizer.json loses."""
        tensors = {UNIGRAM_SCORES: read_unigram_scores(definition)}
        if self.has_importance:
            tensors[IMPORTANCE] = weights.array(IMPORTANCE)
        if self.has_projection:
            tensors[PROJECTION] = weights.array(PROJECTION)
        return tensors

    def _importance(self, checkpoint: Checkpoint) -> Matrix:
        """What was learned of query tokens (hidden,); zeros where nothing was."""
        hidden = checkpoint.hidden_size
        if not self.has_importance:
            return np.zeros(hidden, dtype=np.float32)
        return _read_learned(checkpoint, IMPORTANCE, (hidden,))

    def _projection(self, checkpoint: Checkpoint) -> Matrix | None:
        hidden = checkpoint.hidden_size
        if not self.has_projection:
            return None
        return _read_learned(checkpoint, PROJECTION, (hidden, hidden))


def read_unigram_scores(definition: Mapping[str, Any]) -> Matrix:
    """Log-probability of each piece (vocabulary,); special pieces count as the rarest.

    Args:
        definition: The contents of a tokenizer.json.

    Raises:
        UnsupportedModelError: the vocabulary is of another kind than Unigram.
    """
    model = cast("dict[str, Any]", definition["model"])
    if model.get("type") != "Unigram":
        raise UnsupportedModelError("a maxsim head needs the scores of a Unigram vocabulary")
    scores = np.array([score for _, score in model["vocab"]], dtype=np.float32)
    scores[sorted(special_ids(definition))] = scores.min()
    return scores


def _stored_scores(checkpoint: Checkpoint) -> Matrix:
    """Each piece's log-probability (vocabulary,), kept apart in a converted model."""
    if checkpoint.converted_dtype is None:
        return read_unigram_scores(read_definition(checkpoint.folder))
    return Weights(weight_files(checkpoint.folder)).array(UNIGRAM_SCORES)


def _read_learned(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> Matrix:
    learned = Weights(weight_files(checkpoint.folder)).array(name)
    if learned.shape != shape:
        raise UnsupportedModelError(
            f"{checkpoint.folder}: {name} has shape {learned.shape}, and the hidden size "
            f"is {checkpoint.hidden_size}; they do not belong together"
        )
    return learned


def _mean_states(outputs: Matrix, batch: PackedBatch) -> Matrix:
    sums = np.add.reduceat(outputs, batch.cu_seqlens[:-1], axis=0)
    return (sums / batch.lengths[:, None]).astype(np.float32)
