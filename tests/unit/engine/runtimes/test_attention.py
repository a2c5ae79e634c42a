from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tamis.engine.runtimes.attention import (
    Spans,
    VarlenKernel,
    attend_each,
    attend_together,
    choose_attention,
    varlen_kernel,
)

EDGES = [0, 5, 6, 14]
SPANS = Spans(EDGES, torch.tensor(EDGES, dtype=torch.int32))
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def random_qkv(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(EDGES[-1], 3, 2, 8, generator=generator).to(dtype)


def by_hand(qkv: Tensor, edges: list[int]) -> Tensor:
    """Softmax attention written out, in float64, sequence by sequence."""
    parts = []
    for start, end in pairwise(edges):
        query, key, value = qkv[start:end].double().permute(1, 2, 0, 3)  # (heads, length, size)
        weights = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, dim=-1)
        parts.append((weights @ value).transpose(0, 1))
    return torch.cat(parts)


def documented_kernel(
    query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int
) -> Tensor:
    """What torch's `varlen_attn` documents, which runs on CUDA alone."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert int(cu_q.diff().max()) == max_q
    assert int(cu_k.diff().max()) == max_k
    output = torch.empty_like(query)
    for n in range(len(cu_q) - 1):
        rows, columns = slice(cu_q[n], cu_q[n + 1]), slice(cu_k[n], cu_k[n + 1])
        scores = torch.einsum("qhd,khd->hqk", query[rows], key[columns])
        weights = torch.softmax(scores / query.shape[-1] ** 0.5, dim=-1)
        output[rows] = torch.einsum("hqk,khd->qhd", weights, value[columns])
    return output


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_each_sequence_attends_to_itself_alone(dtype: torch.dtype) -> None:
    qkv = random_qkv(dtype)
    found = attend_each(qkv, SPANS, False)
    assert torch.allclose(found.double(), by_hand(qkv, EDGES), atol=TOLERANCES[dtype])


def test_one_kernel_for_all_sequences_gives_the_same() -> None:
    qkv = random_qkv()
    found = attend_together(documented_kernel)(qkv, SPANS, False)
    assert torch.allclose(found.double(), by_hand(qkv, EDGES), atol=1e-6)


@pytest.mark.parametrize("attend", [attend_each, attend_together(documented_kernel)])
def test_the_first_tokens_alone_get_what_they_get_among_all(attend: object) -> None:
    qkv = random_qkv()
    assert callable(attend)
    found = attend(qkv, SPANS, True)
    assert torch.allclose(found.double(), by_hand(qkv, EDGES)[EDGES[:-1]], atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "capability", "kernel"),
    [
        ("float16", None, documented_kernel),
        ("float32", (9, 0), documented_kernel),
        ("float16", (7, 5), documented_kernel),
        ("float16", (9, 0), None),
    ],
    ids=["on a CPU", "in float32", "before Ampere", "without a kernel"],
)
def test_sequence_by_sequence_where_the_kernel_cannot_run(
    dtype: str, capability: tuple[int, int] | None, kernel: VarlenKernel | None
) -> None:
    assert choose_attention(dtype, capability, kernel) is attend_each


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_one_kernel_in_half_precision_from_ampere_on(dtype: str) -> None:
    assert choose_attention(dtype, (8, 0), documented_kernel) is not attend_each


def test_torch_has_the_kernel_that_is_called() -> None:
    assert varlen_kernel() is not None
