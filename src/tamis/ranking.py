"""Logits -> scores, order, top_n and threshold. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLANK_LOGIT = -1000.0
"""Of a document without a letter or digit: its score is exactly 0, whatever the model."""

_WORD_CHARACTER = re.compile(r"[^\W_]|[\ud800-\udfff]")
"""A lone surrogate counts, so that the tokenizer refuses it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A document's place: its index in the request, its logit and its score (0..1)."""

    index: int
    logit: float
    score: float


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
) -> list[Placed]:
    """Order documents, best first; equal logits keep the order they were given in.

    Args:
        logits: One for each document, (n,).
        top_n: Maximum number of documents; None for all.
        threshold: Lowest score that stays; None for no bound. A blank document is below any.
        order: Documents, best first, where it is known already; those without a logit have no
            place in it.
    """
    if order is None:
        order = np.argsort(-logits, kind="stable")
    return list(_placed(logits, order, threshold))[:top_n]


def _placed(
    logits: NDArray[np.float32], order: NDArray[np.intp], threshold: float | None
) -> Iterator[Placed]:
    for index, score in zip(order, sigmoid(logits[order]).tolist(), strict=True):
        logit = float(logits[index])
        if threshold is None or (score >= threshold and logit > BLANK_LOGIT):
            yield Placed(int(index), logit, score)
