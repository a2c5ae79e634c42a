"""Logits -> scores, order, top_n and threshold. Pure."""

import re

import numpy as np
from numpy.typing import NDArray

BLANK_LOGIT = -1000.0
"""Of a document without a letter or digit: its score is exactly 0, whatever the model."""

_WORD_CHARACTER = re.compile(r"[^\W_]|[\ud800-\udfff]")
"""A lone surrogate counts, so that the tokenizer refuses it."""


def has_words(text: str) -> bool:
    """Whether a text has a letter or digit of any script: without one it answers nothing."""
    return _WORD_CHARACTER.search(text) is not None


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores 0..1 of logits (n,), in float64 so that large logits keep their order."""
    wide = logits.astype(np.float64)
    return np.exp(-np.logaddexp(0.0, -wide))


def rank(
    logits: NDArray[np.float32],
    *,
    top_n: int | None = None,
    threshold: float | None = None,
    order: NDArray[np.intp] | None = None,
) -> list[tuple[int, float]]:
    """Index and score (0..1) of documents, best first; equal logits keep the order given.

    Args:
        logits: One for each document, (n,).
        top_n: Maximum number of documents; None for all.
        threshold: Lowest score that stays; None for no bound. A blank document is below any.
        order: Documents, best first, where it is known already.
    """
    if order is None:
        order = best_first(logits)
    places = zip(order.tolist(), sigmoid(logits[order]).tolist(), strict=True)
    return [
        (index, score)
        for index, score in places
        if threshold is None or (score >= threshold and logits[index] > BLANK_LOGIT)
    ][:top_n]


def best_first(
    logits: NDArray[np.float32], among: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Those of some documents, or of all, that have a logit, best first; equals as given."""
    chosen = np.arange(len(logits)) if among is None else among
    found = chosen[np.isfinite(logits[chosen])]
    return found[np.argsort(-logits[found], kind="stable")]
