"""Reading what became of pairs."""

from collections.abc import Iterable

from tamis.errors import TamisError
from tamis.types import PairScore


def failures_of(scores: Iterable[PairScore]) -> dict[int, TamisError]:
    """Why pairs have failed, by position."""
    return {n: score.failure for n, score in enumerate(scores) if score.failure is not None}
