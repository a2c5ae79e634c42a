"""Pairs -> one packed batch: tokens end to end, no padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.engine.pairs import EncodedPair, TokenIds, distinct_sequences


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """Sequences laid end to end.

    Attributes:
        token_ids: (n_tokens,).
        type_ids: (n_tokens,).
        cu_seqlens: Where each sequence starts, and the end of the last, (n_sequences + 1,).
        pair_sequences: Which sequences make each pair, (n_pairs, 1 or 2). A sequence that
            several pairs share (one query, many documents) stands in the batch once.
    """

    token_ids: TokenIds
    type_ids: TokenIds
    cu_seqlens: NDArray[np.int32]
    pair_sequences: NDArray[np.intp]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sequence, (n_sequences,)."""
        return np.diff(self.cu_seqlens)


def collate(pairs: Sequence[EncodedPair]) -> PackedBatch:
    """Pack pairs (at least one) into one batch, keeping their order."""
    sequences, rows = distinct_sequences(pairs)
    lengths = [len(sequence.token_ids) for sequence in sequences]
    return PackedBatch(
        token_ids=np.concatenate([sequence.token_ids for sequence in sequences]),
        type_ids=np.concatenate([sequence.type_ids for sequence in sequences]),
        cu_seqlens=np.cumsum([0, *lengths], dtype=np.int32),
        pair_sequences=np.array(rows, dtype=np.intp),
    )
