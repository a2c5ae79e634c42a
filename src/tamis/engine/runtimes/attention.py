"""Attention over packed sequences in torch: each token attends to its own sequence alone.

Two strategies with one shape of call: one fused kernel for all sequences (variable-length
attention, FlashAttention-2, arXiv:2307.08691), or scaled dot products sequence by sequence.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - everybody calls it so
from torch import Tensor

VARLEN_DTYPES = ("float16", "bfloat16")
VARLEN_CAPABILITY = (8, 0)
"""FlashAttention-2 wants Ampere or newer."""

VarlenKernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]
"""query, key, value, cu_seq_q, cu_seq_k, max_q, max_k -> output, as `varlen_attn` takes them."""


class Spans(NamedTuple):
    """Where sequences lie in a packed batch.

    Attributes:
        edges: Start of each sequence, and the end of the last, (n_sequences + 1,).
        cu_seqlens: The same in int32, on the model's device.
    """

    edges: list[int]
    cu_seqlens: Tensor

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(end - start for start, end in pairwise(self.edges))


Attention = Callable[[Tensor, Spans, bool], Tensor]
"""(qkv (n_tokens, 3, heads, size), spans, first_only) -> (n_tokens, heads, size).

With `first_only` the first token of each sequence alone asks: (n_sequences, heads, size).
"""


def attend_each(qkv: Tensor, spans: Spans, first_only: bool) -> Tensor:  # noqa: FBT001 - a Callable
    """Sequence by sequence, on any device and in any dtype."""
    mixed: list[Tensor] = []
    for start, end in pairwise(spans.edges):
        # (1, heads, length, size) each: only with a batch dimension are fused kernels taken
        query, key, value = qkv[None, start:end].permute(2, 0, 3, 1, 4)
        if first_only:
            query = query[:, :, :1]
        attended = F.scaled_dot_product_attention(query, key, value)
        mixed.append(attended[0].transpose(0, 1))  # (length, heads, size)
    return torch.cat(mixed)


def attend_together(kernel: VarlenKernel) -> Attention:
    """All sequences in one call of a variable-length kernel."""

    def attend(qkv: Tensor, spans: Spans, first_only: bool) -> Tensor:  # noqa: FBT001 - as above
        query, key, value = qkv.unbind(1)  # (n_tokens, heads, size) each
        cu_query, longest = spans.cu_seqlens, spans.longest
        if first_only:
            query = query[cu_query[:-1].long()]
            cu_query, longest = torch.arange(len(spans.edges)).to(cu_query), 1
        return kernel(query, key, value, cu_query, spans.cu_seqlens, longest, spans.longest)

    return attend


def choose_attention(
    dtype: str, capability: tuple[int, int] | None, kernel: VarlenKernel | None
) -> Attention:
    """The strategy for a device.

    Args:
        dtype: What is computed in.
        capability: CUDA's compute capability; None on a CPU.
        kernel: The variable-length kernel, where torch has one.
    """
    if kernel is None or capability is None or dtype not in VARLEN_DTYPES:
        return attend_each
    return attend_together(kernel) if capability >= VARLEN_CAPABILITY else attend_each


def varlen_kernel() -> VarlenKernel | None:
    """The variable-length attention of torch; None in a torch that has none."""
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
