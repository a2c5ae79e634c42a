"""One model's way from texts to logits: take what is known, encode and submit the rest."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tamis.cache.pair_keys import PairKeys
from tamis.cache.read_through import Answered, Outcome, ReadThrough
from tamis.cache.values import PairScore
from tamis.encoding import EncodingThread
from tamis.engine.pairs import EncodedPair, Logits, PairEncoder, beyond_length
from tamis.errors import (
    DeadlineExceededError,
    RequestTooLargeError,
    TamisError,
    TooManyCharactersError,
)
from tamis.scheduler.jobs import Terms
from tamis.scheduler.scheduler import Scheduler, SchedulerStatistics
from tamis.timing import PhaseObserver
from tamis.types import RerankRequest

MOST_CHARACTERS_PER_TOKEN = 16
"""On the average of a text: XLM-R's longest piece. An estimate must not refuse what would fit."""


def least_tokens(characters: Iterable[int], max_length: int) -> int:
    """Tokens that pairs will have at least, before they are tokenized.

    Args:
        characters: Of each document.
        max_length: Tokens that the model reads of a pair. A quarter of them is never cut away: a
            query may take half of the room, and special tokens some more.
    """
    most = max(1, max_length // 4) * MOST_CHARACTERS_PER_TOKEN
    each = [min(most, n_characters) for n_characters in characters]
    return len(each) + sum(each) // MOST_CHARACTERS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class StageScores:
    """Documents as one model has scored them; arrays are (n_documents,).

    Attributes:
        logits: NaN where there is none.
        n_tokens: Of each pair, as the model read it; 0 without a logit.
        truncated: Whether text of a document was left out.
        query_truncated: Whether text of the query was.
        cached: Whether it has a logit for which nothing was computed.
        failures: Why a document has no logit, by position.
    """

    logits: Logits
    n_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    query_truncated: NDArray[np.bool_]
    cached: NDArray[np.bool_]
    failures: Mapping[int, TamisError]


@dataclass(frozen=True, slots=True)
class ModelStage:
    """One model, ready for many callers. Belongs to one event loop.

    Attributes:
        keys: Of this model's pairs.
        is_as_keyed: Whether what computes is what the keys were made for: a worker may come back
            with other files, or on another device.
        max_length: Tokens it reads of a pair.
        max_request_tokens: Tokens of one request's pairs; None for no bound but the queue's.
        timing: Hears how long tokenizing takes.
    """

    model_name: str
    tokenizer: PairEncoder
    scheduler: Scheduler
    encoding: EncodingThread
    read_through: ReadThrough
    keys: PairKeys
    max_length: int
    max_request_tokens: int | None = None
    is_as_keyed: Callable[[], bool] = lambda: True
    timing: PhaseObserver = field(default_factory=PhaseObserver)

    async def score(
        self,
        request: RerankRequest,
        terms: Terms,
        *,
        namespace: str,
        indices: Sequence[int] | None = None,
    ) -> StageScores:
        """Score a request's documents, or some of them.

        Args:
            request: The request.
            terms: The caller's.
            namespace: Whose scores may be used.
            indices: The documents to score; all where None.

        Raises:
            TamisError: as `RerankService.rerank`.
        """
        texts = request.texts()
        chosen = range(len(texts)) if indices is None else indices
        texts = [texts[index] for index in chosen]

        cut = np.array([request.is_beyond_characters(index) for index in chosen], dtype=np.bool_)

        async def compute(positions: list[int]) -> list[Outcome]:
            most = request.max_document_characters or 0
            refused: dict[int, Outcome] = {
                p: too_many_characters(f"document {chosen[p]}", len(texts[p]), most)
                for p in positions
                if cut[p] and not request.truncate
            }
            wanted = [p for p in positions if p not in refused]
            computed = await self._outcomes(
                request, terms, [texts[p] for p in wanted], [chosen[p] for p in wanted]
            )
            outcomes = refused | dict(zip(wanted, computed, strict=True))
            return [outcomes[p] for p in positions]

        keys = self.keys.of(
            namespace, request.query, texts, truncation_side=request.truncation_side
        )
        answered = await self.read_through.scores(
            keys,
            compute,
            deadline=terms.deadline,
            priority=terms.priority,
            use=request.cache if self._is_itself() else "off",
            keeps=self._is_itself,  # it may have been lost meanwhile
            usable=lambda score: request.truncate or not (score.truncated or score.query_truncated),
        )
        return _collected(answered, cut, partial=terms.partial)

    def statistics(self) -> SchedulerStatistics:
        """Where the scheduler stands now."""
        return self.scheduler.statistics()

    def _is_itself(self) -> bool:
        """What another device than the model's own computes, or another model, is not kept."""
        return self.scheduler.statistics().degraded != "stand_in" and self.is_as_keyed()

    async def _outcomes(
        self, request: RerankRequest, terms: Terms, texts: list[str], indices: list[int]
    ) -> list[Outcome]:
        """What became of each text; a part of an answer leaves out those that are too long."""
        try:
            pairs = await self._encode(request, texts, terms, indices) if texts else []
        except DeadlineExceededError as late:
            if not terms.partial:
                raise
            return [late] * len(texts)
        outcomes = {} if request.truncate else self._too_long(pairs, indices)
        fitting = [number for number in range(len(pairs)) if number not in outcomes]
        if fitting:
            scores = await self.scheduler.submit(
                [pairs[n] for n in fitting], terms, [indices[n] for n in fitting]
            )
            for place, (number, logit) in enumerate(zip(fitting, scores.logits, strict=True)):
                outcomes[number] = scores.failures.get(place) or _score(pairs[number], float(logit))
        return [outcomes[number] for number in range(len(pairs))]

    def _too_long(self, pairs: list[EncodedPair], indices: list[int]) -> dict[int, Outcome]:
        """Why pairs are refused one by one, by position.

        Raises:
            TextTooLongError: the query is too long, and every pair has it.
        """
        found: dict[int, Outcome] = {}
        for number, (pair, index) in enumerate(zip(pairs, indices, strict=True)):
            error = beyond_length(pair, self.max_length, index)
            if error is not None and pair.query_truncated:
                raise error
            if error is not None:
                found[number] = error
        return found

    async def _encode(
        self, request: RerankRequest, texts: list[str], terms: Terms, indices: list[int]
    ) -> list[EncodedPair]:
        self.scheduler.require_room(least_tokens(map(len, texts), self.max_length), terms)
        try:
            async with asyncio.timeout(_seconds_until(terms.deadline)):
                with self.timing.phase("encode"):
                    pairs = await self.encoding.encode(
                        self.tokenizer,
                        request,
                        texts,
                        indices,
                        caller=terms.caller,
                        truncate=request.truncate or terms.partial,
                    )
        except TimeoutError:
            raise DeadlineExceededError("the time for this request was over") from None
        n_tokens, at_most = sum(pair.n_tokens for pair in pairs), self.max_request_tokens
        if at_most is not None and n_tokens > at_most:
            raise RequestTooLargeError(
                f"the request has {n_tokens:,} tokens, at most {at_most:,} allowed; "
                "split the request"
            )
        return pairs


def too_many_characters(what: str, n_characters: int, at_most: int) -> TooManyCharactersError:
    """Why a text is refused before it is tokenized."""
    return TooManyCharactersError(
        f"{what} has {n_characters:,} characters, at most {at_most:,} allowed; cut it, or "
        "send it in parts"
    )


def _score(pair: EncodedPair, logit: float) -> PairScore:
    return PairScore(logit, pair.n_tokens, pair.truncated, pair.query_truncated)


def _seconds_until(deadline: float) -> float | None:
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())


def _collected(
    answered: Sequence[Answered], cut: NDArray[np.bool_], *, partial: bool
) -> StageScores:
    """Arrays of what became of each pair; `cut` says which were cut before they were tokenized.

    Raises:
        TamisError: why the first pair without a logit has none, unless a part is enough.
    """
    outcomes = [one.outcome for one in answered]
    failures = {i: one for i, one in enumerate(outcomes) if isinstance(one, TamisError)}
    if failures and not partial:
        raise failures[min(failures)]
    nothing = PairScore(np.nan, 0, truncated=False)
    scores = [nothing if isinstance(one, TamisError) else one for one in outcomes]
    return StageScores(
        logits=np.array([score.logit for score in scores], dtype=np.float32),
        n_tokens=np.array([score.n_tokens for score in scores], dtype=np.int64),
        truncated=np.array([score.truncated for score in scores], dtype=np.bool_)
        | (cut & ~np.isin(np.arange(len(scores)), list(failures))),
        query_truncated=np.array([score.query_truncated for score in scores], dtype=np.bool_),
        cached=np.array(
            [one.is_cached and isinstance(one.outcome, PairScore) for one in answered], np.bool_
        ),
        failures=failures,
    )
