from pathlib import Path

import numpy as np
import pytest

from tamis.engine.loading import load_model
from tamis.errors import InferenceError
from tamis.settings import ModelSettings, RuntimeName


@pytest.mark.parametrize("runtime", ["ctranslate2", "torch"])
def test_a_closed_backend_has_given_its_model_back(
    tiny_model: Path, cache_dir: Path, runtime: RuntimeName
) -> None:
    settings = ModelSettings(name=str(tiny_model), cache_dir=cache_dir, runtime=runtime)
    model = load_model(settings)
    pairs = model.tokenizer.encode("q", ["d"])
    assert np.isfinite(model.backend.forward(pairs)).all()

    model.backend.close()
    model.backend.close()

    with pytest.raises(InferenceError, match="closed"):
        model.backend.forward(pairs)


def test_a_classifier_explains_nothing(tiny_model: Path, cache_dir: Path) -> None:
    model = load_model(ModelSettings(name=str(tiny_model), cache_dir=cache_dir))

    assert model.backend.explain(model.tokenizer.encode("q", ["d"])[0]) is None
