from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tamis.engine.collate import PackedBatch, collate
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.torch import runtime as torch_runtime
from tamis.engine.torch.attention import (
    Spans,
    Strategy,
    attend_each,
    attend_in_buckets,
    attend_together,
    varlen_kernel,
)
from tamis.settings import DtypeName, ModelSettings
from tests.torch_runtime import open_torch
from tests.unit.engine.torch.test_attention import documented_kernel

DOCUMENTS = ["the panda is a bear", "water boils at degrees", "paris", "the giant panda is a bear"]


def loaded(folder: Path, dtype: DtypeName = "auto") -> LoadedModel:
    """The model of a folder on torch."""
    return load_model(ModelSettings(name=str(folder), runtime="torch", dtype=dtype))


@pytest.fixture
def batch(tiny_model: Path) -> PackedBatch:
    """One query and documents of several lengths, some of them equal."""
    return collate(loaded(tiny_model).tokenizer.encode("what is a panda", DOCUMENTS))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_runs_in_the_fused_kernel(tiny_model: Path, dtype: DtypeName) -> None:
    model = loaded(tiny_model, dtype)
    pairs = model.tokenizer.encode("what is a panda", DOCUMENTS)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where that kernel would not be taken
        logits = model.backend.forward(pairs)

    assert np.isfinite(logits).all()


@pytest.mark.parametrize("reads_tokens", [False, True], ids=["first token", "all tokens"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1), ("float16", 0.02)]
)
@pytest.mark.parametrize("strategy", ["in buckets", "together"])
def test_a_whole_model_gives_the_same_as_sequence_by_sequence(
    *,
    tiny_model: Path,
    batch: PackedBatch,
    strategy: str,
    dtype: str,
    tolerance: float,
    reads_tokens: bool,
) -> None:
    runtime = open_torch(tiny_model, dtype=dtype, reads_tokens=reads_tokens)
    expected = runtime.forward(batch)

    runtime._attention = (
        attend_in_buckets(getattr(torch, dtype))
        if strategy == "in buckets"
        else attend_together(documented_kernel)
    )

    np.testing.assert_allclose(runtime.forward(batch), expected, atol=tolerance)


@pytest.mark.parametrize("reads_tokens", [False, True], ids=["first token", "all tokens"])
@pytest.mark.parametrize("strategy", ["each", "in buckets", "together"])
def test_nothing_comes_back_from_a_device_but_the_result_once(
    tiny_model: Path,
    batch: PackedBatch,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    reads_tokens: bool,
) -> None:
    fetched: list[Tensor] = []

    def fetch(tensor: Tensor) -> NDArray[np.float32]:
        fetched.append(tensor)
        return np.zeros(tensor.shape, dtype=np.float32)

    # tensors on `meta` have shapes and no values: reading one raises
    monkeypatch.setattr(torch_runtime, "DEFAULT_BATCH_TOKENS", {"meta": 1})
    monkeypatch.setattr(torch_runtime, "fetch", fetch)
    runtime = open_torch(tiny_model, dtype="float16", reads_tokens=reads_tokens, device="meta")
    kernel = varlen_kernel()
    assert kernel is not None
    strategies: dict[str, Strategy] = {
        "each": attend_each,
        "in buckets": attend_in_buckets(torch.float16),
        "together": attend_together(kernel),
    }
    runtime._attention = strategies[strategy]

    runtime.forward(batch)

    (result,) = fetched
    assert result.device.type == "meta"
    assert len(result) == len(batch.token_ids if reads_tokens else batch.lengths)


def test_a_lack_of_memory_reaches_the_caller_as_torch_says_it(
    tiny_model: Path, batch: PackedBatch
) -> None:
    runtime = open_torch(tiny_model, dtype="float32")

    def exhausted(_: Spans) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    runtime._attention = exhausted

    with pytest.raises(torch.OutOfMemoryError):
        runtime.forward(batch)


@pytest.mark.parametrize("built_in", [False, True])
def test_on_a_gpu_the_kernel_is_taken_only_where_torch_has_it_built_in(
    monkeypatch: pytest.MonkeyPatch, built_in: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: built_in)
    offered: list[object] = []
    monkeypatch.setattr(torch_runtime, "choose_attention", lambda *told: offered.extend(told))

    torch_runtime._attention_of("cuda", "float16", 64)

    *told, kernel = offered
    assert told == ["float16", (8, 6), 64]
    assert (kernel is not None) == built_in


def test_bfloat16_that_a_gpu_only_emulates_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_bf16_supported(*, including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)

    assert torch_runtime.computed_dtypes("cuda") == {"float32", "float16"}
