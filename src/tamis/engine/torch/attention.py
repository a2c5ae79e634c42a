"""Attention over packed sequences in torch: each token attends to its own sequence alone.

Three strategies with one shape of call: one fused kernel for all sequences (variable-length
attention, FlashAttention-2, arXiv:2307.08691), scaled dot products for buckets of like length,
or scaled dot products sequence by sequence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - everybody calls it so
from numpy.typing import NDArray
from torch import Tensor

from tamis.engine.buckets import (
    Bucket,
    places_of_sequences,
    places_of_tokens,
    sort_into_buckets,
)
from tamis.engine.torch.transfer import put

VARLEN_DTYPES = ("float16", "bfloat16")
VARLEN_CAPABILITY = (8, 0)
"""FlashAttention-2 wants Ampere or newer."""
VARLEN_SIZE_STEP, VARLEN_LARGEST_SIZE = 8, 256
"""Of one head, as FlashAttention-2 takes it."""

_MASK_STEP = 8
"""Elements from one row of a mask to the next are a multiple of it: torch's memory-efficient
kernel wants it so, and copies a mask that is not at each call."""

VarlenKernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]
"""query, key, value, cu_seq_q, cu_seq_k, max_q, max_k -> output, as `varlen_attn` takes them."""


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Where sequences lie in a packed batch.

    Attributes:
        cu_seqlens: Start of each sequence, and the end of the last, (n_sequences + 1,).
        edges: The same on the model's device.
        firsts: Each sequence's first token, for an index there, (n_sequences,).
    """

    cu_seqlens: NDArray[np.int32]
    edges: Tensor
    firsts: Tensor

    @classmethod
    def put(cls, cu_seqlens: NDArray[np.int32], device: torch.device) -> Self:
        """The sequences of a batch whose tokens are on a device."""
        edges = put(cu_seqlens, device)
        return cls(cu_seqlens, edges, edges[:-1].long())


class Attention(Protocol):
    """Attention inside each sequence of one batch."""

    def __call__(self, qkv: Tensor, *, first_only: bool = False) -> Tensor:
        """Mix values: qkv (n_tokens, 3, heads, size) -> (n_tokens, heads, size).

        With `first_only` the first token of each sequence alone asks: (n_sequences, heads, size).
        """
        ...


Strategy = Callable[[Spans], Attention]
"""Takes what all layers need of a batch, once, and gives the attention for each."""


def attend_each(spans: Spans) -> Attention:
    """Sequence by sequence, on any device and in any dtype."""
    edges = spans.cu_seqlens.tolist()

    def attend(qkv: Tensor, *, first_only: bool = False) -> Tensor:
        mixed: list[Tensor] = []
        for start, end in pairwise(edges):
            # the batch dimension, of one: only with it are fused kernels taken
            mixed.append(_attend(qkv[None, start:end], None, first_only=first_only)[0])
        return torch.cat(mixed)

    return attend


def attend_in_buckets(dtype: torch.dtype) -> Strategy:
    """One call for each bucket of like lengths, on any device; a mask only where they differ."""

    def strategy(spans: Spans) -> Attention:
        device = spans.edges.device
        buckets = sort_into_buckets(spans.cu_seqlens)
        tokens = [put(bucket.tokens, device) for bucket in buckets]
        masks = [_mask(bucket, dtype, device) for bucket in buckets]
        of_sequences = put(places_of_sequences(buckets), device)
        of_tokens = put(places_of_tokens(buckets), device)

        def attend(qkv: Tensor, *, first_only: bool = False) -> Tensor:
            mixed = [
                _attend(qkv[places], mask, first_only=first_only).flatten(0, 1)
                for places, mask in zip(tokens, masks, strict=True)
            ]
            return torch.cat(mixed)[of_sequences if first_only else of_tokens]

        return attend

    return strategy


def attend_together(kernel: VarlenKernel) -> Strategy:
    """All sequences in one call of a variable-length kernel."""

    def strategy(spans: Spans) -> Attention:
        edges, longest = spans.edges, int(np.diff(spans.cu_seqlens).max())
        singles = torch.arange(len(edges), dtype=edges.dtype, device=edges.device)

        def attend(qkv: Tensor, *, first_only: bool = False) -> Tensor:
            query, key, value = qkv.unbind(1)  # (n_tokens, heads, size) each
            if first_only:
                return kernel(query[spans.firsts], key, value, singles, edges, 1, longest)
            return kernel(query, key, value, edges, edges, longest, longest)

        return attend

    return strategy


def choose_attention(
    dtype: str, capability: tuple[int, int] | None, head_size: int, kernel: VarlenKernel | None
) -> Strategy:
    """The strategy for a device.

    Args:
        dtype: What is computed in.
        capability: CUDA's compute capability; None on a CPU, where calls are cheap and padding
            is not (`benchmarks/attention_strategies.py`).
        head_size: Elements of one head.
        kernel: The variable-length kernel, where torch has one.
    """
    if capability is None:
        return attend_each
    if kernel is not None and _varlen_takes(dtype, capability, head_size):
        return attend_together(kernel)
    return attend_in_buckets(getattr(torch, dtype))


def fills_up(
    dtype: str, capability: tuple[int, int] | None, head_size: int, kernel: VarlenKernel | None
) -> bool:
    """Whether the strategy that `choose_attention` takes pads sequences, in buckets."""
    together = kernel is not None and capability and _varlen_takes(dtype, capability, head_size)
    return capability is not None and not together


def varlen_kernel() -> VarlenKernel | None:
    """The variable-length attention of torch; None in a torch that has none.

    It is not asked for `num_splits=1`: docs/gpu.md says why.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None

    def kernel(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_q: Tensor,
        cu_k: Tensor,
        max_q: int,
        max_k: int,
    ) -> Tensor:
        output = varlen_attn(query, key, value, cu_q, cu_k, max_q, max_k)
        assert isinstance(output, Tensor)  # noqa: S101 - nothing more was asked for
        return output

    return kernel


def _varlen_takes(dtype: str, capability: tuple[int, int], head_size: int) -> bool:
    fits = head_size % VARLEN_SIZE_STEP == 0 and head_size <= VARLEN_LARGEST_SIZE
    return fits and dtype in VARLEN_DTYPES and capability >= VARLEN_CAPABILITY


def _attend(qkv: Tensor, mask: Tensor | None, *, first_only: bool) -> Tensor:
    """Rows of equal length: (n_rows, length, 3, heads, size) -> (n_rows, length, heads, size).

    With `first_only` the length of the result is 1.
    """
    query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (n_rows, heads, length, size) each
    if first_only:
        query = query[:, :, :1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def _mask(bucket: Bucket, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """What is added to scores, (n_rows, 1, 1, longest): nothing can attend to padding."""
    if bucket.filled.all():
        return None
    n_rows, longest = bucket.filled.shape
    mask = np.full((n_rows, longest + -longest % _MASK_STEP), -np.inf, dtype=np.float32)
    mask[:, :longest][bucket.filled] = 0
    return put(mask, device).to(dtype)[:, None, None, :longest]
