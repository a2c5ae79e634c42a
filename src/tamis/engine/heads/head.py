"""What a head is: before its tensors are read, and after."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tamis.engine.checkpoint import Checkpoint
from tamis.engine.collate import PackedBatch
from tamis.engine.pairs import Logits
from tamis.engine.tokenization import PairTokenizer
from tamis.engine.weights import Weights

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Matches:
    """For one pair: each query token's nearest document token.

    Attributes:
        nearest: Position of that token among the document's text tokens, (n_query_tokens,).
        similarities: Their cosines, averaged with those of neighbouring tokens, (n_query_tokens,).
        shares: Weights of the query tokens, summing to 1, (n_query_tokens,).
    """

    nearest: NDArray[np.intp]
    similarities: Matrix
    shares: Matrix


class Head(Protocol):
    """What stands on an encoder."""

    @property
    def reads_tokens(self) -> bool:
        """True: it reads every token's state. False: the pooled first token's."""
        ...

    def logits(self, outputs: Matrix, batch: PackedBatch) -> Logits:
        """One logit for each pair of the batch."""
        ...

    def matches(self, outputs: Matrix, batch: PackedBatch, pair: int) -> Matches | None:
        """What each query token of one pair found; None where the head cannot say."""
        ...


class HeadOptions(Protocol):
    """A head as `tamis.json` describes it; nothing of its tensors has been read."""

    kind: ClassVar[str]
    """Its `type` in `tamis.json`."""

    reads_tokens: ClassVar[bool]
    """See `Head.reads_tokens`."""

    def require_fit(self, checkpoint: Checkpoint) -> None:
        """Refuse a checkpoint whose `config.json` describes no such head.

        Raises:
            UnsupportedModelError: it does not.
        """
        ...

    def open(
        self, checkpoint: Checkpoint, text: Tokenizer, *, max_length: int
    ) -> tuple[PairTokenizer, Head]:
        """The tokenizer that makes its pairs, and the head with its tensors.

        Args:
            checkpoint: A source, or its converted form.
            text: The checkpoint's tokenizer.
            max_length: Tokens a pair may have.

        Raises:
            ModelError: a tensor is missing, or does not belong to this checkpoint.
        """
        ...

    def converted_tensors(
        self, checkpoint: Checkpoint, weights: Weights, definition: Mapping[str, Any]
    ) -> dict[str, Matrix]:
        """What a converted folder must hold for `open`, by name.

        Args:
            checkpoint: The source.
            weights: The source's tensors.
            definition: The contents of its tokenizer.json.
        """
        ...
