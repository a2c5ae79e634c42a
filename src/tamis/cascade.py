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
from tamis.ranking import BLANK_LOGIT

_LEAST_DEVIATION = 1e-6
"""Below it logits are all alike, and say nothing of their scale."""


@dataclass(frozen=True, slots=True)
class StagedLogits:
    """Logits of both stages on the second one's scale.

    Attributes:
        logits: One for each document, (n,), non-increasing along `order`.
        order: Documents, best first, (n,): the second stage's, then the rest in the first's order.
        is_second: Whether the second stage has read the document, (n,).

    A document without a logit (NaN) has no place in the order.
    """

    logits: NDArray[np.float32]
    order: NDArray[np.intp]
    is_second: NDArray[np.bool_]


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


def one_stage(logits: NDArray[np.float32]) -> StagedLogits:
    """Logits (n,) of the second stage alone."""
    every = np.ones(len(logits), dtype=np.bool_)
    return StagedLogits(logits, _best_first(logits, np.arange(len(logits))), every)


def merge(
    first: NDArray[np.float32], kept: NDArray[np.intp], second: NDArray[np.float32]
) -> StagedLogits:
    """Both stages' logits on the second stage's scale.

    Logits of the rest go through the line that gives the kept documents' first-stage logits the
    mean and deviation of their second-stage ones (linear equating; its slope is positive however
    the stages agree), moved down where needed so that none exceeds the lowest kept one.

    Args:
        first: The first stage's logits, (n,).
        kept: Documents the second stage has read, (n_kept,); without any, the first stage's
            logits stand as they are.
        second: Its logits of them, (n_kept,).
    """
    is_second = np.zeros(len(first), dtype=np.bool_)
    is_second[kept] = True
    rest = _best_first(first, np.flatnonzero(~is_second))
    logits = first.copy()
    logits[kept] = second
    if len(rest) and len(kept):
        logits[rest] = _equated(first[rest], first[kept], second)
    head = _best_first(logits, np.sort(kept))
    return StagedLogits(logits, np.concatenate([head, rest]), is_second)


def with_blank(staged: StagedLogits, places: Sequence[int], n_documents: int) -> StagedLogits:
    """Logits of all documents, where some are blank and were not scored; those come last.

    Args:
        staged: Of the documents that have words.
        places: Their indices among all, ascending.
        n_documents: All.
    """
    where = np.asarray(places, dtype=np.intp)
    logits = np.full(n_documents, BLANK_LOGIT, dtype=np.float32)
    logits[where] = staged.logits
    is_second = np.zeros(n_documents, dtype=np.bool_)
    is_second[where] = staged.is_second
    blank = np.setdiff1d(np.arange(n_documents, dtype=np.intp), where)
    return StagedLogits(logits, np.concatenate([where[staged.order], blank]), is_second)


def _best_first(logits: NDArray[np.float32], among: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of some documents that have a logit, best first; equals as they were given."""
    found = among[np.isfinite(logits[among])]
    return found[np.argsort(-logits[found], kind="stable")]


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
