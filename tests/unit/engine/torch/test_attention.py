from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everybody calls it so
from torch import Tensor
from torch.nn.attention import varlen

from tamis.engine.buckets import sort_into_buckets
from tamis.engine.torch.attention import (
    Spans,
    Strategy,
    VarlenKernel,
    attend_each,
    attend_in_buckets,
    attend_together,
    choose_attention,
    fills_up,
    varlen_kernel,
)

LENGTHS = [4, 1, 8, 8, 30, 27, 29, 64, 64, 2]
"""Alone in a bucket, equal in one, and unequal in one."""
EDGES = np.cumsum([0, *LENGTHS], dtype=np.int32)
SPANS = Spans.put(EDGES, torch.device("cpu"))
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def random_qkv(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(EDGES[-1], 3, 2, 8, generator=generator).to(dtype)


def by_hand(qkv: Tensor) -> Tensor:
    """Softmax attention written out, in float64, sequence by sequence."""
    parts = []
    for start, end in pairwise(EDGES):
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


STRATEGIES: dict[str, Callable[[torch.dtype], Strategy]] = {
    "each": lambda _: attend_each,
    "in buckets": attend_in_buckets,
    "together": lambda _: attend_together(documented_kernel),
}


class Calls:
    """What `scaled_dot_product_attention` was called with."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._attend = F.scaled_dot_product_attention
        self.rows: list[int] = []
        self.masks: list[Tensor | None] = []
        patch.setattr(F, "scaled_dot_product_attention", self.attend)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None
    ) -> Tensor:
        """Note the call and pass it on."""
        self.rows.append(len(query))
        self.masks.append(attn_mask)
        return self._attend(query, key, value, attn_mask=attn_mask)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Calls of scaled dot products from here on."""
    return Calls(monkeypatch)


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_each_sequence_attends_to_itself_alone(name: str, dtype: torch.dtype) -> None:
    qkv = random_qkv(dtype)
    found = STRATEGIES[name](dtype)(SPANS)(qkv)
    assert torch.allclose(found.double(), by_hand(qkv), atol=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_the_first_tokens_alone_get_what_they_get_among_all(name: str, dtype: torch.dtype) -> None:
    qkv = random_qkv(dtype)
    found = STRATEGIES[name](dtype)(SPANS)(qkv, first_only=True)
    assert torch.allclose(found.double(), by_hand(qkv)[EDGES[:-1]], atol=TOLERANCES[dtype])


@pytest.mark.parametrize("first_only", [False, True])
def test_sequence_by_sequence_there_is_a_call_for_each(calls: Calls, first_only: bool) -> None:
    attend_each(SPANS)(random_qkv(), first_only=first_only)
    assert calls.rows == [1] * len(LENGTHS)


@pytest.mark.parametrize("first_only", [False, True])
def test_in_buckets_there_is_a_call_for_each_bucket(calls: Calls, first_only: bool) -> None:
    attend_in_buckets(torch.float32)(SPANS)(random_qkv(), first_only=first_only)
    assert calls.rows == [2, 3, 2, 1, 1, 1]


def test_a_mask_is_there_only_in_buckets_of_unequal_lengths(calls: Calls) -> None:
    attend_in_buckets(torch.float32)(SPANS)(random_qkv())
    shapes = [None if mask is None else tuple(mask.shape) for mask in calls.masks]
    assert shapes == [None, (3, 1, 1, 30), None, None, None, None]


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_a_mask_lies_in_memory_as_the_memory_efficient_kernel_wants_it(
    calls: Calls, dtype: torch.dtype
) -> None:
    attend_in_buckets(dtype)(SPANS)(random_qkv(dtype))
    (mask,) = (mask for mask in calls.masks if mask is not None)
    assert mask.dtype == dtype
    assert mask.stride(-1) == 1
    assert all(step % 8 == 0 for step in mask.stride()[:-1])


def test_on_a_cpu_it_goes_sequence_by_sequence() -> None:
    assert choose_attention("float16", None, 64, documented_kernel) is attend_each
    assert not fills_up("float16", None, 64, documented_kernel)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("size", [8, 64, 256])
def test_one_kernel_in_half_precision_from_ampere_on(calls: Calls, dtype: str, size: int) -> None:
    assert not fills_up(dtype, (8, 0), size, documented_kernel)
    attend = choose_attention(dtype, (8, 0), size, documented_kernel)(SPANS)
    attend(random_qkv(getattr(torch, dtype)))
    assert not calls.rows


@pytest.mark.parametrize(
    ("dtype", "capability", "size", "kernel"),
    [
        ("float32", (9, 0), 64, documented_kernel),
        ("float16", (7, 5), 64, documented_kernel),
        ("float16", (9, 0), 64, None),
        ("float16", (9, 0), 20, documented_kernel),
        ("float16", (9, 0), 264, documented_kernel),
    ],
    ids=["float32", "before Ampere", "no kernel", "a head of odd size", "too large a head"],
)
def test_buckets_on_a_gpu_where_the_kernel_cannot_run(
    calls: Calls, dtype: str, capability: tuple[int, int], size: int, kernel: VarlenKernel | None
) -> None:
    assert fills_up(dtype, capability, size, kernel)
    attend = choose_attention(dtype, capability, size, kernel)(SPANS)
    attend(random_qkv(getattr(torch, dtype)))
    assert len(calls.rows) == len(sort_into_buckets(EDGES))


def test_torch_has_the_kernel_that_is_called() -> None:
    assert varlen_kernel() is not None


def test_the_kernel_is_asked_for_nothing_that_some_versions_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, object] = {}

    def varlen_attn(*tensors: Tensor | int, **options: object) -> Tensor:
        asked.update(options)
        query, *others = tensors
        assert isinstance(query, Tensor)
        assert len(others) == 6
        return query

    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    kernel = varlen_kernel()
    assert kernel is not None
    attend_together(kernel)(SPANS)(random_qkv())
    assert asked == {}
