"""A batch that is mostly padding is run in parts."""

import numpy as np
import pytest

from tamis.engine.ctranslate2 import runtime as ctranslate2
from tamis.engine.loading import load_model
from tamis.settings import ModelSettings


def test_short_texts_among_long_ones_have_the_scores_that_they_have_in_one_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load_model(ModelSettings(threads=1))
    texts = ["fine grain " * 100, *(f"short {n}" for n in range(6)), "a wire sieve " * 30]
    pairs = model.tokenizer.encode("which sieve is fine?", texts)
    monkeypatch.setattr(ctranslate2, "LEAST_PLACES", 10**9)
    together = model.backend.forward(pairs)
    monkeypatch.setattr(ctranslate2, "LEAST_PLACES", 0)
    for most in (2, 8):
        monkeypatch.setattr(ctranslate2, "MOST_PADDING", most)
        assert np.abs(model.backend.forward(pairs) - together).max() < 1e-4
    model.backend.close()
