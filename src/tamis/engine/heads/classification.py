"""Query and document read together: one linear layer on the pooled first token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from tokenizers import Tokenizer

from tamis.engine.checkpoint import TAMIS_FILE, TOKENIZER_FILE, Checkpoint
from tamis.engine.collate import PackedBatch
from tamis.engine.heads.head import Matches, Matrix
from tamis.engine.pairs import Logits
from tamis.engine.templates import JointTemplate, read_joint_template
from tamis.engine.tokenization import PairTokenizer
from tamis.engine.weights import Weights, open_weights
from tamis.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationHead:
    """A linear layer; the one before it (dense and tanh) belongs to the runtime, which pools."""

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

    def matches(self, outputs: Matrix, batch: PackedBatch, pair: int) -> Matches | None:
        """None: it sees no tokens."""
        return None


class ClassificationOptions(msgspec.Struct, frozen=True, tag_field="type", tag="classification"):
    """The head that `config.json` names; it has no options."""

    kind: ClassVar[str] = "classification"
    reads_tokens: ClassVar[bool] = False

    def require_fit(self, checkpoint: Checkpoint) -> None:
        """Refuse an encoder alone, and more labels than one."""
        folder = checkpoint.folder
        if not checkpoint.family.output:
            raise UnsupportedModelError(
                f"{folder} is an encoder without a classification head, and no {TAMIS_FILE} "
                "names one"
            )
        if checkpoint.n_labels != 1:
            raise UnsupportedModelError(
                f"{folder} has {checkpoint.n_labels} labels; a reranker has one (the relevance "
                "logit)"
            )

    def open(
        self, checkpoint: Checkpoint, text: Tokenizer, *, max_length: int
    ) -> tuple[PairTokenizer, ClassificationHead]:
        """Pairs as the model's own tokenizer puts them together."""
        template = read_joint_template(text)
        _require_no_padding(checkpoint, template)
        tokenizer = PairTokenizer(text, template, max_length=max_length)
        return tokenizer, ClassificationHead.read(checkpoint)

    def converted_tensors(
        self, checkpoint: Checkpoint, weights: Weights, definition: Mapping[str, Any]
    ) -> dict[str, Matrix]:
        """The output layer."""
        names = (f"{checkpoint.family.output}.weight", f"{checkpoint.family.output}.bias")
        return {name: weights.array(name) for name in names}


def _require_no_padding(checkpoint: Checkpoint, template: JointTemplate) -> None:
    """RoBERTa counts no position at a padding token, so that none may stand in a pair."""
    parts = (template.prefix, template.middle, template.suffix)
    padding = checkpoint.position_offset - 1
    if any(padding in part.token_ids for part in parts):
        raise UnsupportedModelError(
            f"{checkpoint.folder}: config.json has pad_token_id {padding}, which {TOKENIZER_FILE} "
            "puts around every text; they do not belong together"
        )
