"""Benchmarks measure on random weights: they must load like any other checkpoint."""

from pathlib import Path

import numpy as np

from tamis import Reranker
from tamis.bench.random_checkpoint import Shape, write_random_checkpoint

SMALL = Shape(n_layers=2, n_heads=4, hidden=32, inner=64, positions=130)
PAIRS = [("a question", "an answer"), ("a question", "不同的答案")]


def test_a_random_checkpoint_loads_and_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, same, other = (
        Reranker(write_random_checkpoint(tmp_path / name, SMALL, seed=seed)).score(PAIRS)
        for name, seed in (("first", 1), ("same", 1), ("other", 2))
    )
    assert np.array_equal(first, same)
    assert not np.allclose(first, other)
