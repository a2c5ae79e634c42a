"""tamis, through its Python face."""

import sys
from pathlib import Path

from protocol import serve

from tamis import Reranker
from tamis.engine.loading import load_model
from tamis.settings import model_settings

folder, cache_dir, runtime, dtype = sys.argv[1:]
model = Reranker(
    load_model(
        model_settings(
            {"name": folder, "cache_dir": Path(cache_dir), "runtime": runtime, "dtype": dtype}
        )
    )
)


def score(query: str, documents: list[str]) -> list[float]:
    """Logits, in the documents' order."""
    ranked = sorted(model.rank(query, documents), key=lambda place: place.index)
    return [place.logit for place in ranked]


serve(score, ["tamis", "ctranslate2"] if runtime == "ctranslate2" else ["tamis", "torch"])
