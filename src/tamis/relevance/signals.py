"""What one answer says of its ranking: pure, and cheap enough for an event loop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.ranking import sigmoid

TOP = 5
"""Places at the top whose documents are compared with those given there."""

Floats = NDArray[np.float64]
Order = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Ranking:
    """One answer, as the server gave it.

    Attributes:
        caller: The caller's name, from its key; empty without keys.
        logits: One for each document in the order given; NaN where there is none. In a cascade
            all are on the served model's scale, unless it is a part.
        n_truncated: Documents that were cut to fit.
        n_tokens: Tokens of all pairs.
        n_shown: Documents that came back, after top_n and threshold.
        request_id: What feedback names it by; empty where it gets none.
        shown: Those documents, best first; empty where the order is that of their logits.
        is_part: Whether a document has no logit, or a cascade's stage left some out.
    """

    model: str
    dialect: str
    caller: str
    logits: Sequence[float]
    n_truncated: int
    n_tokens: int
    n_shown: int
    request_id: str = ""
    shown: Sequence[int] = ()
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class OrderSignals:
    """A ranking against the order its documents were given in.

    Attributes:
        retained: Whether the first document given stays first.
        top_overlap: Share of the first five given that are among the best five; None where there
            are no more than five.
        displacement: Places a document moves, on the average.
        kendall_tau: 1 where no pair of documents has changed its order, -1 where every pair has.
    """

    retained: bool
    top_overlap: float | None
    displacement: float
    kendall_tau: float


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """All signals of one answer in which every document has a logit.

    Attributes:
        logits: (n_documents,), as given.
        scores: Their sigmoids, (n_documents,).
        order: Documents, best first, (n_documents,).
        best_logit: The first one's.
        best_score: The first one's.
        margin: Logit of the first less that of the second; None where there is no second.
        against_given: None where there is no second document.
        truncation: Share of documents that were cut.
        tokens: Tokens of a pair, on the average.
    """

    logits: Floats
    scores: Floats
    order: Order
    best_logit: float
    best_score: float
    margin: float | None
    against_given: OrderSignals | None
    truncation: float
    tokens: float


def read(ranking: Ranking) -> Reading | None:
    """The signals of an answer; None where it is a part, or a document has no logit.

    The best of a part is not the best of the whole: such an answer says nothing of the ranking.
    """
    logits = np.asarray(ranking.logits, dtype=np.float32)
    n_documents = len(logits)
    if ranking.is_part or not n_documents or not np.isfinite(logits).all():
        return None
    order = order_of(ranking)
    scores = sigmoid(logits)
    best = int(order[0])
    margin = float(logits[best] - logits[order[1]]) if n_documents > 1 else None
    return Reading(
        logits=logits.astype(np.float64),
        scores=scores,
        order=order,
        best_logit=float(logits[best]),
        best_score=float(scores[best]),
        margin=margin,
        against_given=against_given(order) if n_documents > 1 else None,
        truncation=ranking.n_truncated / n_documents,
        tokens=ranking.n_tokens / n_documents,
    )


def order_of(ranking: Ranking) -> Order:
    """Documents that have a logit, best first; of equal ones those that were shown before others.

    In a cascade the second stage's last may have the logit of the first stage's best, and stands
    before it wherever it was given.
    """
    logits = np.asarray(ranking.logits, dtype=np.float32)
    places = np.full(len(logits), len(logits))
    places[np.asarray(ranking.shown, dtype=np.intp)] = np.arange(len(ranking.shown))
    scored = np.flatnonzero(np.isfinite(logits))
    return scored[np.lexsort((places[scored], -logits[scored]))]


def against_given(order: Order) -> OrderSignals:
    """Compare an order with 0, 1, 2, ….

    Args:
        order: Documents by their place given, best first: a permutation, (n,) with n > 1.
    """
    n = len(order)
    overlap = int(np.count_nonzero(order[:TOP] < TOP)) / TOP if n > TOP else None
    moved = np.abs(order - np.arange(n))
    return OrderSignals(
        retained=bool(order[0] == 0),
        top_overlap=overlap,
        displacement=float(moved.mean()),
        kendall_tau=1 - 4 * n_inversions(order) / (n * (n - 1)),
    )


def n_inversions(order: Order) -> int:
    """Pairs whose larger number comes first, in a permutation of 0 to n-1.

    A radix sort from the highest bit down: numbers alike above a bit stand together, where the
    sorted ones will stand, and each 1 before a 0 among them is an inversion. n log n steps, each
    of the log n passes over whole arrays.
    """
    values = np.asarray(order)
    places = np.arange(len(values))
    found = 0
    for bit in reversed(range((len(values) - 1).bit_length())):
        ones = (values >> bit) & 1
        starts = (values >> (bit + 1)) << (bit + 1)
        ones_before = np.cumsum(ones) - ones
        ones_before -= ones_before[starts]  # within the group
        found += int(ones_before @ (1 - ones))
        targets = np.where(ones, (1 << bit) + ones_before, places - starts - ones_before)
        sorted_further = np.empty_like(values)
        sorted_further[starts + targets] = values
        values = sorted_further
    return found


def ranks_by_index(order: Order, n_documents: int) -> NDArray[np.unsignedinteger]:
    """The rank (from 1) of each document, (n_documents,), in as few bytes as it needs.

    Documents without a place in the order follow it as they were given, as answers have them.
    """
    ranks = np.zeros(n_documents, dtype=np.min_scalar_type(n_documents))
    ranks[order] = np.arange(1, len(order) + 1)
    left = np.flatnonzero(ranks == 0)
    ranks[left] = np.arange(len(order) + 1, n_documents + 1)
    return ranks
