import numpy as np
from numpy.typing import NDArray

from tamis.bench.clocks import Spent, TimedRuntime
from tamis.engine.collate import PackedBatch, collate
from tamis.engine.padding import Padding
from tamis.engine.pairs import EncodedPair, TokenSequence


class SquareRuntime:
    """One number for each sequence: its length."""

    device = "cpu"
    dtype = "float32"
    max_batch_tokens = 64
    padding: Padding = "none"

    def forward(self, batch: PackedBatch) -> NDArray[np.float32]:
        return batch.lengths.astype(np.float32)[:, None]

    def close(self) -> None:
        pass


def pair(n_tokens: int) -> EncodedPair:
    ids = np.zeros(n_tokens, dtype=np.int32)
    return EncodedPair((TokenSequence(ids, ids),), truncated=False)


def test_a_timed_runtime_counts_tokens_and_what_padding_would_add() -> None:
    spent = Spent()
    runtime = TimedRuntime(SquareRuntime(), spent)
    outputs = runtime.forward(collate([pair(10), pair(4)]))
    runtime.forward(collate([pair(5)]))
    assert outputs.tolist() == [[10.0], [4.0]]
    assert (spent.n_batches, spent.n_tokens, spent.n_padded_tokens) == (2, 19, 25)
    assert spent.runtime_seconds > 0
