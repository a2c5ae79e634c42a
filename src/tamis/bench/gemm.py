"""How many operations a forward pass takes, and how many the machine can do."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from tamis.engine.checkpoint import CONFIG_FILE, read_struct

N_TOKENS = 1024
SHAPES = ((1024, 1024), (1024, 3072), (1024, 4096), (4096, 1024))
"""Columns and rows of XLM-RoBERTa-large's linear layers."""
REPEATS = 5


class _Config(msgspec.Struct, frozen=True):
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """What the operations of an encoder depend on."""

    n_layers: int
    hidden: int
    inner: int

    def operations(self, lengths: Sequence[int]) -> float:
        """Multiplications and additions for sequences of these lengths, all layers whole."""
        linear = 2 * (4 * self.hidden**2 + 2 * self.hidden * self.inner) * sum(lengths)
        attention = 4 * self.hidden * sum(length**2 for length in lengths)
        return float(self.n_layers * (linear + attention))


def read_encoder_size(folder: Path) -> EncoderSize:
    """Sizes of a model's folder.

    Raises:
        IncompleteModelError: it has no config.json.
        UnsupportedModelError: config.json does not name them.
    """
    config = read_struct(folder / CONFIG_FILE, _Config)
    return EncoderSize(config.num_hidden_layers, config.hidden_size, config.intermediate_size)


def float32_peak() -> float:
    """Best float32 GEMM rate over the shapes, operations a second, measured with numpy."""
    random = np.random.default_rng(0)
    best = 0.0
    for columns, rows in SHAPES:
        left = random.standard_normal((N_TOKENS, columns), dtype=np.float32)
        right = random.standard_normal((columns, rows), dtype=np.float32)
        _ = left @ right  # starts the threads
        for _ in range(REPEATS):
            started = time.perf_counter()
            _ = left @ right
            seconds = time.perf_counter() - started
            best = max(best, 2 * N_TOKENS * columns * rows / seconds)
    return best
