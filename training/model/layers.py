"""The base's layers in torch: post-norm transformer layers.

Products are of bfloat16, sums float32, where the processor has AVX-512; one that has not takes
several times as long for bfloat16 as for float32, and gets float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from training.model.base import Floats

LAYER_NORM_EPS = 1e-12
IS_FAST_IN_BFLOAT16 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")

# Hugging Face names of a layer's linear parts and norms, by ours; `joined` holds three.
_PARTS = {
    "attended": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widened": "intermediate.dense",
    "narrowed": "output.dense",
    "output_norm": "output.LayerNorm",
}
_JOINED = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))


def fast_products() -> torch.autocast:
    """A context in which matrix products are of the type that is fast here."""
    return torch.autocast("cpu", torch.bfloat16, enabled=IS_FAST_IN_BFLOAT16)


def layer_parts() -> dict[str, str]:
    """Hugging Face names of a layer's linear parts, by ours; `joined` reads for three."""
    linear = ("attended", "widened", "narrowed")
    return {"joined": "attention.self", **{part: _PARTS[part] for part in linear}}


class Layer(nn.Module):
    """One encoder layer."""

    def __init__(self, hidden: int, n_heads: int, intermediate: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.joined = nn.Linear(hidden, 3 * hidden)
        self.attended = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)
        self.widened = nn.Linear(hidden, intermediate)
        self.narrowed = nn.Linear(intermediate, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """States after the layer.

        Args:
            states: (n, longest, hidden).
            mask: True where a key counts, (n, 1, 1, longest); None: everywhere.
        """
        n, longest, hidden = states.shape
        joined = self.joined(states).view(n, longest, 3, self.n_heads, hidden // self.n_heads)
        # float32: on a CPU its backward pass takes half of bfloat16's time
        query, key, value = joined.permute(2, 0, 3, 1, 4).float()
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = self.attended(mixed.transpose(1, 2).reshape(states.shape))
        states = self.attention_norm(states + mixed)
        return self.output_norm(states + self.narrowed(gelu(self.widened(states))))


def read_layer(tensors: Mapping[str, Floats], prefix: str, n_heads: int) -> Layer:
    """A layer from tensors with Hugging Face names behind a prefix."""
    intermediate, hidden = tensors[f"{prefix}intermediate.dense.weight"].shape
    layer = Layer(hidden, n_heads, intermediate)
    state: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        parts = [tensors[f"{prefix}{name}.{kind}"] for name in _JOINED]
        state[f"joined.{kind}"] = torch.from_numpy(np.concatenate(parts))
        for ours, theirs in _PARTS.items():
            state[f"{ours}.{kind}"] = torch.tensor(tensors[f"{prefix}{theirs}.{kind}"])
    layer.load_state_dict(state)
    return layer


def layer_tensors(layer: Layer, prefix: str) -> dict[str, Floats]:
    """A layer's tensors under Hugging Face names behind a prefix."""
    state = {name: value.detach().float().numpy() for name, value in layer.state_dict().items()}
    tensors: dict[str, Floats] = {}
    for kind in ("weight", "bias"):
        for name, part in zip(_JOINED, np.split(state[f"joined.{kind}"], 3), strict=True):
            tensors[f"{prefix}{name}.{kind}"] = part
        for ours, theirs in _PARTS.items():
            tensors[f"{prefix}{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    return tensors


def embed(ids: Tensor, tensors: Mapping[str, Floats]) -> Tensor:
    """States below the first layer, (n, longest, hidden); all tokens are of type 0."""
    words = torch.from_numpy(tensors["embeddings.word_embeddings.weight"])
    positions = torch.from_numpy(tensors["embeddings.position_embeddings.weight"])
    types = torch.from_numpy(tensors["embeddings.token_type_embeddings.weight"])
    norm = [torch.from_numpy(tensors[f"embeddings.LayerNorm.{x}"]) for x in ("weight", "bias")]
    states = words[ids] + positions[: ids.shape[1]] + types[0]
    return layer_norm(states, states.shape[-1:], *norm, LAYER_NORM_EPS)


def filled(lengths: list[int], longest: int) -> Tensor:
    """True where a padded row holds a token, (n, longest)."""
    return torch.arange(longest)[None] < torch.tensor(lengths)[:, None]


def padded_ids(sequences: list[list[int]]) -> tuple[Tensor, Tensor | None]:
    """Ids (n, longest), and the mask of a layer: None where no sequence is padded."""
    lengths = [len(sequence) for sequence in sequences]
    longest = max(lengths)
    ids = torch.ones(len(sequences), longest, dtype=torch.long)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return ids, None if min(lengths) == longest else filled(lengths, longest)[:, None, None]


def padded_batches(lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Numbers of sequences of like length, the longest first, `budget` padded tokens at most."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, budget // lengths[order[start]])
        yield order[start : start + size]
        start += size
