"""What callers say of documents, and the answers they can say it of."""

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InvalidFieldError, UnknownRequestError
from tamis.relevance.series import EVENTS, Series

FEEDBACK_SECONDS = 3600.0
"""How long after an answer feedback on it counts."""
MOST_RANKS = 2_000_000
"""Of all answers together: 4 MB where each has more than 255 documents."""


@dataclass(slots=True, eq=False)
class _Answer:
    """One that feedback may come for, in few bytes: there are thousands.

    Attributes:
        ranks: From 1, by index, `width` bytes each.
        marks: What was said already, a bit an event, by index; None before anything was.
    """

    series: Series
    ranks: bytes
    width: int
    expires: float
    marks: bytearray | None = None

    @property
    def n_documents(self) -> int:
        """Documents of the request."""
        return len(self.ranks) // self.width

    def rank(self, index: int) -> int:
        """The rank of a document, from 1."""
        start = index * self.width
        return int.from_bytes(self.ranks[start : start + self.width], sys.byteorder)


class FeedbackMemory:
    """Ranks of the newest answers by caller and request id.

    Args:
        max_answers: How many answers are remembered; 0 for none.
        seconds: For how long.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        max_answers: int,
        seconds: float = FEEDBACK_SECONDS,
        *,
        max_ranks: int = MOST_RANKS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_answers = max_answers
        self._max_ranks = max_ranks
        self._seconds = seconds
        self._clock = clock
        self._n_ranks = 0
        self._answers: OrderedDict[tuple[str, str], _Answer] = OrderedDict()

    def __len__(self) -> int:
        """Answers that are remembered, some of them perhaps too old."""
        return len(self._answers)

    def remember(
        self, caller: str, request_id: str, ranks: NDArray[np.unsignedinteger], series: Series
    ) -> None:
        """Keep an answer's ranks; of a caller's answers with one id the newest counts.

        Args:
            caller: Who asked, and may give feedback.
            request_id: What the answer was sent with.
            ranks: From 1, by index, (n_documents,).
            series: Where its feedback is counted.
        """
        key = (caller, request_id)
        self._forget(key)
        expires = self._clock() + self._seconds
        self._answers[key] = _Answer(series, ranks.tobytes(), ranks.itemsize, expires)
        self._n_ranks += len(ranks)
        while len(self._answers) > self._max_answers or self._n_ranks > self._max_ranks:
            self._forget(next(iter(self._answers)))

    def record(self, caller: str, request_id: str, indices: Sequence[int], event: str) -> int:
        """Count what a caller says of documents; each once. Returns how many are new.

        Raises:
            UnknownRequestError: the caller has had no such answer, or too long ago.
            InvalidFieldError: the answer has no document of that index; none is counted then.
        """
        answer = self._answers.get((caller, request_id))
        if answer is None or answer.expires < self._clock():
            raise UnknownRequestError(
                "no answer with this `request_id` is remembered; send the `X-Request-Id` of a "
                "recent answer of yours"
            )
        n_documents = answer.n_documents
        if len(indices) > n_documents:
            raise InvalidFieldError(
                f"`index` names more documents than the request had; it had {n_documents}"
            )
        for index in indices:
            if not 0 <= index < n_documents:
                raise InvalidFieldError(
                    "`index` names a document that the request did not have; it had "
                    f"{n_documents}, from 0 to {n_documents - 1}"
                )
        return self._count(answer, indices, event)

    def _count(self, answer: _Answer, indices: Sequence[int], event: str) -> int:
        bit = 1 << EVENTS.index(event)
        marks = answer.marks = answer.marks or bytearray(answer.n_documents)
        is_first = not any(mark & bit for mark in marks)
        new = [index for index in dict.fromkeys(indices) if not marks[index] & bit]
        counts = answer.series.feedback[event]
        ranks = [answer.rank(index) for index in new]
        for index, rank in zip(new, ranks, strict=True):
            marks[index] |= bit
            counts.ranks.add(rank)
            counts.given_ranks.add(index + 1)
        if is_first and ranks:
            counts.reciprocal_ranks.add(1 / min(ranks))
        return len(new)

    def _forget(self, key: tuple[str, str]) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._n_ranks -= answer.n_documents
