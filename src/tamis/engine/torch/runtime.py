"""The second runtime (extra `torch`): the reference, on any device and in any float dtype.

An own packed forward pass of a BERT encoder (arXiv:1810.04805, post-norm): linear layers run on
all tokens end to end, attention inside each sequence; where only the first token is read, the
last layer runs for it alone.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - everybody calls it so
from numpy.typing import NDArray
from torch import Tensor

from tamis.engine.checkpoint import Activation, Checkpoint
from tamis.engine.collate import PackedBatch
from tamis.engine.device import HALF_PRECISION, cpu_computes
from tamis.engine.padding import Padding
from tamis.engine.runtime import DEFAULT_BATCH_TOKENS
from tamis.engine.torch.attention import (
    Spans,
    Strategy,
    choose_attention,
    fills_up,
    varlen_kernel,
)
from tamis.engine.torch.transfer import fetch, put
from tamis.engine.weights import Weights
from tamis.errors import InferenceError

_ACTIVATE: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_,
    "relu": torch.relu_,
}
"""In place: the inner states are the largest there are, and a copy allocates their pages again."""


def cuda_available() -> bool:
    """Whether torch sees a CUDA device."""
    return torch.cuda.is_available()


def computed_dtypes(device: str) -> frozenset[str]:
    """What torch computes in on a device of this machine, at more than a crawl."""
    if device == "cpu":
        return frozenset({"float32", *filter(cpu_computes, HALF_PRECISION)})
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return frozenset({"float32", "float16"} | ({"bfloat16"} if bfloat16 else set[str]()))


class Affine(NamedTuple):
    """Weight and bias, of a linear layer or a layer norm."""

    weight: Tensor
    bias: Tensor


class Layer(NamedTuple):
    """One encoder layer; `qkv` holds query, key and value one below the other."""

    qkv: Affine
    attention_output: Affine
    attention_norm: Affine
    intermediate: Affine
    output: Affine
    output_norm: Affine


class TorchRuntime:
    """An encoder straight from safetensors.

    Args:
        threads: CPU threads of one forward pass (torch keeps one number for the process).
        reads_tokens: Whether token states are wanted rather than the pooled first token.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights: Weights,
        *,
        device: str,
        dtype: str,
        threads: int,
        reads_tokens: bool,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.max_batch_tokens = DEFAULT_BATCH_TOKENS[device]
        torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._n_heads = checkpoint.n_heads
        self._epsilon = checkpoint.layer_norm_epsilon
        self._activate = _ACTIVATE[checkpoint.activation]
        read = _Reader(weights, checkpoint.family.prefix, self._device, dtype)
        self._tokens = read.tensor("embeddings.word_embeddings.weight")
        positions = read.tensor("embeddings.position_embeddings.weight")
        self._positions = positions[checkpoint.position_offset :]
        self._types = read.tensor("embeddings.token_type_embeddings.weight")
        self._embedding_norm = read.affine("embeddings.LayerNorm")
        self._layers = [read.layer(f"encoder.layer.{n}") for n in range(checkpoint.n_layers)]
        self._pooler = None if reads_tokens else read.pooler(checkpoint.family.pooler)
        head_size = self._tokens.shape[1] // self._n_heads
        self.padding: Padding
        self._attention, self.padding = _attention_of(device, dtype, head_size)

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> NDArray[np.float32]:
        if not self._layers:
            raise InferenceError("the model is closed")
        spans = Spans.put(batch.cu_seqlens, self._device)
        attend = self._attention(spans)
        states = self._embed(batch)  # (n_tokens, hidden)
        for layer in self._layers[:-1]:
            states = self._finish(layer, states, attend(self._project(layer, states)))
        last = self._layers[-1]
        if self._pooler is None:
            return fetch(self._finish(last, states, attend(self._project(last, states))))
        attended = attend(self._project(last, states), first_only=True)
        first = self._finish(last, states[spans.firsts], attended)  # (n_sequences, hidden)
        return fetch(torch.tanh(F.linear(first, *self._pooler)))

    def close(self) -> None:
        self._layers.clear()
        self._tokens = self._positions = self._types = torch.empty(0)
        torch.cuda.empty_cache()  # does nothing where there is no GPU

    def _embed(self, batch: PackedBatch) -> Tensor:
        starts = np.repeat(batch.cu_seqlens[:-1], batch.lengths)
        places = np.arange(len(starts), dtype=np.int32) - starts
        ids = put(np.stack([batch.token_ids, places, batch.type_ids]), self._device)
        states = (
            F.embedding(ids[0], self._tokens)
            + F.embedding(ids[1], self._positions)
            + F.embedding(ids[2], self._types)
        )
        return self._norm(self._embedding_norm, states)

    def _project(self, layer: Layer, states: Tensor) -> Tensor:
        """Queries, keys and values, (n_tokens, 3, heads, size)."""
        return F.linear(states, *layer.qkv).view(len(states), 3, self._n_heads, -1)

    def _finish(self, layer: Layer, states: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer: output projection, feed-forward, both with residual and norm."""
        projected = F.linear(attended.flatten(1), *layer.attention_output)
        states = self._norm(layer.attention_norm, projected.add_(states))
        inner = self._activate(F.linear(states, *layer.intermediate))
        return self._norm(layer.output_norm, F.linear(inner, *layer.output).add_(states))

    def _norm(self, norm: Affine, states: Tensor) -> Tensor:
        return F.layer_norm(states, (states.shape[-1],), *norm, eps=self._epsilon)


class _Reader:
    """Tensors of a checkpoint on their device, in their dtype."""

    def __init__(self, weights: Weights, prefix: str, device: torch.device, dtype: str) -> None:
        self._weights = weights
        self._prefix = prefix
        self._device = device
        self._dtype: torch.dtype = getattr(torch, dtype)

    def tensor(self, name: str, prefix: str | None = None) -> Tensor:
        array = self._weights.array((self._prefix if prefix is None else prefix) + name)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(array).to(self._device, self._dtype)

    def affine(self, name: str) -> Affine:
        return Affine(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))

    def pooler(self, name: str) -> Affine:
        return Affine(self.tensor(f"{name}.weight", ""), self.tensor(f"{name}.bias", ""))

    def layer(self, name: str) -> Layer:
        parts = [self.affine(f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        return Layer(
            Affine(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])),
            self.affine(f"{name}.attention.output.dense"),
            self.affine(f"{name}.attention.output.LayerNorm"),
            self.affine(f"{name}.intermediate.dense"),
            self.affine(f"{name}.output.dense"),
            self.affine(f"{name}.output.LayerNorm"),
        )


def _attention_of(device: str, dtype: str, head_size: int) -> tuple[Strategy, Padding]:
    capability = torch.cuda.get_device_capability() if device == "cuda" else None
    kernel = varlen_kernel() if torch.backends.cuda.is_flash_attention_available() else None
    told = (dtype, capability, head_size, kernel)
    return choose_attention(*told), "buckets" if fills_up(*told) else "none"
