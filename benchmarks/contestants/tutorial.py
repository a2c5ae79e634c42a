"""The tutorials' way: transformers, eager, float32, one batch padded to its longest pair."""

import sys

import torch
from protocol import serve
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(
    folder, attn_implementation="eager"
).eval()


def score(query: str, documents: list[str]) -> list[float]:
    """Logits, in the documents' order."""
    pairs = [[query, document] for document in documents]
    inputs = tokenizer(pairs, padding=True, truncation=True, max_length=512, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.squeeze(-1).tolist()


serve(score, ["torch", "transformers"])
