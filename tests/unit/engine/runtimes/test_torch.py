from pathlib import Path

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.collate import collate
from tamis.engine.loading import load_model
from tamis.engine.runtimes.attention import attend_together
from tamis.engine.runtimes.torch import TorchRuntime
from tamis.engine.weights import read_weights
from tamis.settings import DtypeName, ModelSettings
from tests.unit.engine.runtimes.test_attention import documented_kernel

DOCUMENTS = ["the panda is a bear", "water boils at degrees", "paris"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_runs_in_the_fused_kernel(tiny_model: Path, dtype: DtypeName) -> None:
    model = load_model(ModelSettings(name=str(tiny_model), runtime="torch", dtype=dtype))
    pairs = model.tokenizer.encode("what is a panda", DOCUMENTS)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where that kernel would not be taken
        logits = model.backend.forward(pairs)

    assert np.isfinite(logits).all()


@pytest.mark.parametrize("reads_tokens", [False, True], ids=["first token", "all tokens"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1), ("float16", 0.02)]
)
def test_a_whole_model_gives_the_same_through_one_kernel_as_sequence_by_sequence(
    tiny_model: Path, dtype: str, tolerance: float, reads_tokens: bool
) -> None:
    checkpoint = read_checkpoint(tiny_model)
    runtime = TorchRuntime(
        checkpoint,
        read_weights(checkpoint),
        device="cpu",
        dtype=dtype,
        threads=1,
        reads_tokens=reads_tokens,
    )
    tokenizer = load_model(ModelSettings(name=str(tiny_model), runtime="torch")).tokenizer
    batch = collate(tokenizer.encode("what is a panda", DOCUMENTS))
    expected = runtime.forward(batch)

    runtime._attention = attend_together(documented_kernel)

    np.testing.assert_allclose(runtime.forward(batch), expected, atol=tolerance)
