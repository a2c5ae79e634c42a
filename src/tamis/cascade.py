"""A cascade's policy: which documents the second stage reads, and one scale for both. Pure.

Multi-stage ranking (Nogueira et al., arXiv:1910.14424): a first-stage model scores all
candidates, the main model only the best of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tamis.errors import SettingsError
from tamis.ranking import best_first

_LEAST_DEVIATION = 1e-6
"""Below it logits are all alike, and say nothing of their scale."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """How much of the first stage's order the second stage reads.

    Attributes:
        keep: Number of best documents.
        margin: And all whose first-stage logit is at most this far below the last of those.
    """

    keep: int
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what keeps nothing.

        Raises:
            SettingsError: a number is out of its range.
        """
        keep, margin = cast("object", self.keep), cast("object", self.margin)  # no types, perhaps
        if type(keep) is not int or type(margin) not in (int, float):
            raise SettingsError(
                "cascade.keep is a whole number and cascade.margin a number, not "
                f"{type(keep).__name__} and {type(margin).__name__}"
            )
        if self.keep < 1:
            raise SettingsError(f"cascade.keep is {self.keep}; it must be at least 1")
        if not (np.isfinite(self.margin) and self.margin >= 0):
            raise SettingsError(f"cascade.margin is {self.margin}; it must be 0 or more")

    def select(self, first: NDArray[np.float32], texts: Sequence[str] = ()) -> NDArray[np.intp]:
        """Documents the second stage reads, best first.

        Args:
            first: The first stage's logits, (n,).
            texts: Of the documents: those with the text of a kept one are kept, too, which costs
                nothing, because equal pairs are scored once.
        """
        order = np.argsort(-first, kind="stable")
        if len(order) <= self.keep:
            return order
        n_kept = self.keep
        if self.margin > 0:
            lowest = float(first[order[self.keep - 1]]) - self.margin
            n_kept = max(n_kept, int(np.count_nonzero(first >= lowest)))
        kept = {texts[index] for index in order[:n_kept]} if texts else set[str]()
        copies = [index for index in order[n_kept:] if texts and texts[index] in kept]
        return np.concatenate([order[:n_kept], np.array(copies, dtype=np.intp)])


def merge(
    first: NDArray[np.float32], kept: NDArray[np.intp], second: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Both stages' logits on the second stage's scale, and their order.

    Logits of the rest go through the line that gives the kept documents' first-stage logits the
    mean and deviation of their second-stage ones (linear equating; its slope is positive however
    the stages agree), moved down where needed so that none exceeds the lowest kept one.

    Args:
        first: The first stage's logits, (n,).
        kept: Documents the second stage has read, (n_kept,); without any, the first stage's
            logits stand as they are.
        second: Its logits of them, (n_kept,).

    Returns:
        One logit for each document, (n,), and the documents, best first: the second stage's, then
        the rest in the first's order. Logits do not increase along it; a document without a logit
        (NaN) has no place in it.
    """
    rest = best_first(first, np.setdiff1d(np.arange(len(first)), kept))
    logits = first.copy()
    logits[kept] = second
    if len(rest) and len(kept):
        logits[rest] = _equated(first[rest], first[kept], second)
    head = best_first(logits, np.sort(kept))
    return logits, np.concatenate([head, rest])


def _equated(
    rest: NDArray[np.float32], first: NDArray[np.float32], second: NDArray[np.float32]
) -> NDArray[np.float64]:
    """First-stage logits of the rest, best first, on the second stage's scale."""
    x, y = first.astype(np.float64), second.astype(np.float64)
    slope = y.std() / x.std() if min(x.std(), y.std()) > _LEAST_DEVIATION else 1.0
    below_mean = slope * (rest.astype(np.float64) - x.mean())
    line: NDArray[np.float64] = y.mean() + below_mean
    lowest = float(y.min())
    # the bound once more: a tiny value is lost in the difference to the line
    moved: NDArray[np.float64] = np.minimum(line - max(0.0, float(line[0]) - lowest), lowest)
    return moved
