"""What the untrained layers make of texts: computed once, kept on disk.

Token states below the layers that are trained, in float16; and the base's pooled vectors, to look
for negatives with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from training.model.base import Floats
from training.model.folder import read_tensors
from training.model.layers import (
    IS_FAST_IN_BFLOAT16,
    Layer,
    embed,
    fast_products,
    padded_batches,
    padded_ids,
    read_layer,
)

BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """States of many sequences, end to end.

    Attributes:
        values: (n_tokens, hidden) float16, mapped from a file.
        starts: Where each sequence starts, and the end of the last, (n_sequences + 1,).
        pooled: Above all layers, the mean over a sequence's tokens, of length 1, (n_sequences,
            hidden).
    """

    values: NDArray[np.float16]
    starts: NDArray[np.int64]
    pooled: Floats

    def of(self, number: int) -> Tensor:
        """One sequence's states, (n_tokens, hidden) float32."""
        part = self.values[self.starts[number] : self.starts[number + 1]]
        return torch.from_numpy(part.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """All layers of a model, as they are before training.

    Attributes:
        tensors: Of a model folder.
        layers: All of them, the lowest first.
        first: The number of the first one that is trained: states are kept below it.
    """

    tensors: Mapping[str, Floats]
    layers: Sequence[Layer]
    first: int

    def states(self, sequences: list[list[int]], *, work: Path, label: str) -> States:
        """States of sequences, taken from `work` where they were computed before."""
        path = work / "states" / f"{label}-{self._digest(sequences)}"
        starts = np.cumsum([0, *map(len, sequences)], dtype=np.int64)
        if not path.exists():
            partial = path.with_suffix(".partial")
            partial.mkdir(parents=True, exist_ok=True)
            self._compute(sequences, starts, partial, label)
            partial.rename(path)
        values = np.load(path / "states.npy", mmap_mode="r")
        return States(values, starts, np.load(path / "pooled.npy"))

    @torch.no_grad()
    def encode(self, sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
        """One batch: states below `first` (n, longest, hidden), and above all layers."""
        ids, mask = padded_ids(sequences)
        with fast_products():
            states = embed(ids, self.tensors)
            for layer in self.layers[: self.first]:
                states = layer(states, mask)
            lower = states
            for layer in self.layers[self.first :]:
                states = layer(states, mask)
        return lower, states.float()

    def _digest(self, sequences: list[list[int]]) -> str:
        shape = (IS_FAST_IN_BFLOAT16, len(self.layers), self.first, sequences)
        digest = hashlib.sha256(repr(shape).encode())
        for name in sorted(self.tensors):
            digest.update(self.tensors[name].tobytes())
        return digest.hexdigest()[:16]

    def _compute(
        self, sequences: list[list[int]], starts: NDArray[np.int64], folder: Path, label: str
    ) -> None:
        hidden = self.tensors["embeddings.word_embeddings.weight"].shape[1]
        n_tokens = int(starts[-1])
        values = np.lib.format.open_memmap(
            folder / "states.npy", mode="w+", dtype=np.float16, shape=(n_tokens, hidden)
        )
        pooled = np.zeros((len(sequences), hidden), dtype=np.float32)
        lengths = [len(sequence) for sequence in sequences]
        with tqdm(total=n_tokens, unit="tok", unit_scale=True, desc=label, mininterval=5) as bar:
            for batch in padded_batches(lengths, BATCH_TOKENS):
                lower, upper = self.encode([sequences[i] for i in batch])
                for row, top, i in zip(lower, upper, batch, strict=True):
                    values[starts[i] : starts[i + 1]] = row[: lengths[i]].to(torch.float16).numpy()
                    pooled[i] = normalize(top[: lengths[i]].mean(0), dim=0).numpy()
                bar.update(sum(lengths[i] for i in batch))
        values.flush()
        np.save(folder / "pooled.npy", pooled)


def read_encoder(folder: Path, first: int) -> Encoder:
    """All layers of a model folder."""
    config = json.loads((folder / "config.json").read_text())
    tensors = read_tensors(folder)
    layers = [
        read_layer(tensors, f"encoder.layer.{number}.", config["num_attention_heads"])
        for number in range(config["num_hidden_layers"])
    ]
    return Encoder(tensors, layers, first)
