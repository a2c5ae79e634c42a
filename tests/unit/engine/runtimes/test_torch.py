from pathlib import Path

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

from tamis.engine.loading import load_model
from tamis.settings import DtypeName, ModelSettings

DOCUMENTS = ["the panda is a bear", "water boils at degrees", "paris"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_runs_in_the_fused_kernel(tiny_model: Path, dtype: DtypeName) -> None:
    model = load_model(ModelSettings(name=str(tiny_model), runtime="torch", dtype=dtype))
    pairs = model.tokenizer.encode("what is a panda", DOCUMENTS)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where that kernel would not be taken
        logits = model.backend.forward(pairs)

    assert np.isfinite(logits).all()
