"""FlagEmbedding's FlagReranker with its defaults (float32 on a CPU)."""

import sys

from FlagEmbedding import FlagReranker
from protocol import serve

model = FlagReranker(sys.argv[1], use_fp16=False, devices="cpu")


def score(query: str, documents: list[str]) -> list[float]:
    """Logits, in the documents' order."""
    scores = model.compute_score([(query, document) for document in documents])
    return [scores] if isinstance(scores, float) else list(scores)


serve(score, ["torch", "transformers", "FlagEmbedding"])
