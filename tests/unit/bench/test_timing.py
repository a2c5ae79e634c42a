import numpy as np
from numpy.typing import NDArray

from tamis.bench.gemm import EncoderSize
from tamis.bench.latency import latency
from tamis.bench.timing import Spent, TimedRuntime
from tamis.bench.workloads import make_workload
from tamis.engine.collate import PackedBatch, collate
from tamis.engine.pairs import EncodedPair, TokenSequence


class SquareRuntime:
    """One number for each sequence: its length."""

    device = "cpu"
    dtype = "float32"
    max_batch_tokens = 64

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


def test_operations_are_those_of_the_large_model() -> None:
    large = EncoderSize(n_layers=24, hidden=1024, inner=4096)
    assert large.operations([1]) == 2 * 301_989_888 + 24 * 4 * 1024
    assert large.operations([10, 20]) == 30 * 2 * 301_989_888 + 24 * 4 * 1024 * 500


def test_percentiles_are_of_all_requests() -> None:
    found = latency([float(n) for n in range(1, 101)])
    assert (found.n_requests, found.p50) == (100, 50.5)
    assert 95 < found.p95 < found.p99 < 100


def test_a_workload_has_the_same_texts_for_the_same_seed_only() -> None:
    assert make_workload("rag-mix", 3, seed=1) == make_workload("rag-mix", 3, seed=1)
    assert make_workload("rag-mix", 3, seed=1) != make_workload("rag-mix", 3, seed=2)
    assert len(make_workload("long", 3, seed=1).documents[0].split()) >= 400
    assert len(make_workload("short", 3, seed=1).documents[0].split()) <= 60
