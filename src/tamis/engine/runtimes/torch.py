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
from tamis.engine.runtimes.attention import Spans, choose_attention, varlen_kernel
from tamis.engine.tuning import DEFAULT_BATCH_TOKENS
from tamis.engine.weights import Weights
from tamis.errors import InferenceError

_ACTIVATE: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_,
    "relu": torch.relu_,
}
"""In place: the inner states are the largest there are, and a copy costs their pages anew."""


def cuda_available() -> bool:
    """Whether torch sees a CUDA device."""
    return torch.cuda.is_available()


def computed_dtypes(device: str) -> frozenset[str]:
    """What torch computes in on a device of this machine, at more than a crawl."""
    if device == "cpu":
        return frozenset({"float32", *filter(cpu_computes, HALF_PRECISION)})
    bfloat16 = {"bfloat16"} if torch.cuda.is_bf16_supported() else set[str]()
    return frozenset({"float32", "float16"} | bfloat16)


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
        read = _Reader(weights, checkpoint.family.prefix, torch.device(device), dtype)
        capability = torch.cuda.get_device_capability() if device == "cuda" else None
        self._attention = choose_attention(dtype, capability, varlen_kernel())
        self._n_heads = checkpoint.n_heads
        self._epsilon = checkpoint.layer_norm_epsilon
        self._activate = _ACTIVATE[checkpoint.activation]
        self._tokens = read.tensor("embeddings.word_embeddings.weight")
        positions = read.tensor("embeddings.position_embeddings.weight")
        self._positions = positions[checkpoint.position_offset :]
        self._types = read.tensor("embeddings.token_type_embeddings.weight")
        self._embedding_norm = read.affine("embeddings.LayerNorm")
        self._layers = [read.layer(f"encoder.layer.{n}") for n in range(checkpoint.n_layers)]
        self._pooler = None if reads_tokens else read.pooler(checkpoint.family.pooler)

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> NDArray[np.float32]:
        """See `Runtime.forward`."""
        if not self._layers:
            raise InferenceError("the model is closed")
        cu_seqlens = torch.from_numpy(batch.cu_seqlens).to(self.device)
        spans = Spans(batch.cu_seqlens.tolist(), cu_seqlens)
        states = self._embed(batch)  # (n_tokens, hidden)
        for layer in self._layers[:-1]:
            states = self._finish(layer, states, self._attend(layer, states, spans))
        last = self._layers[-1]
        if self._pooler is None:
            states = self._finish(last, states, self._attend(last, states, spans))
            return _to_numpy(states)
        first = states[cu_seqlens[:-1].long()]  # (n_sequences, hidden)
        first = self._finish(last, first, self._attend(last, states, spans, first_only=True))
        return _to_numpy(torch.tanh(F.linear(first, *self._pooler)))

    def close(self) -> None:
        """See `Runtime.close`."""
        self._layers.clear()
        self._tokens = self._positions = self._types = torch.empty(0)

    def _embed(self, batch: PackedBatch) -> Tensor:
        starts = np.repeat(batch.cu_seqlens[:-1], batch.lengths)
        places = torch.from_numpy(np.arange(len(batch.token_ids)) - starts)
        states = (
            F.embedding(torch.from_numpy(batch.token_ids).to(self.device), self._tokens)
            + F.embedding(places.to(self.device), self._positions)
            + F.embedding(torch.from_numpy(batch.type_ids).to(self.device), self._types)
        )
        return self._norm(self._embedding_norm, states)

    def _attend(
        self, layer: Layer, states: Tensor, spans: Spans, *, first_only: bool = False
    ) -> Tensor:
        """Attention inside each sequence; for its first token alone where that is enough."""
        qkv = F.linear(states, *layer.qkv).view(len(states), 3, self._n_heads, -1)
        return self._attention(qkv, spans, first_only).reshape(-1, states.shape[1])

    def _finish(self, layer: Layer, states: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer: output projection, feed-forward, both with residual and norm."""
        projected = F.linear(attended, *layer.attention_output)
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


def _to_numpy(states: Tensor) -> NDArray[np.float32]:
    return states.float().cpu().numpy()
