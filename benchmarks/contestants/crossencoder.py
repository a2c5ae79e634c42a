"""sentence-transformers' CrossEncoder with its defaults."""

import sys

from protocol import serve
from sentence_transformers import CrossEncoder

model = CrossEncoder(sys.argv[1], max_length=512, device="cpu")


def score(query: str, documents: list[str]) -> list[float]:
    """Logits, in the documents' order."""
    return model.predict([(query, document) for document in documents]).tolist()


serve(score, ["torch", "transformers", "sentence-transformers"])
