"""One model's way from texts to logits: take what is known, encode and submit the rest."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tamis.cache.pair_keys import PairKeys
from tamis.cache.read_through import ReadThrough
from tamis.encoding import EncodingThread
from tamis.engine.pairs import EncodedPair, PairEncoder, require_uncut
from tamis.errors import (
    DeadlineExceededError,
    RequestTooLargeError,
    TextTooLongError,
    TooManyCharactersError,
)
from tamis.scheduler.jobs import Terms
from tamis.scheduler.scheduler import Scheduler, SchedulerStatistics
from tamis.timing import PhaseObserver
from tamis.types import PairScore, RerankRequest, require_scored

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
    ) -> dict[int, PairScore]:
        """What became of a request's documents, or of some of them, by index.

        Args:
            request: The request.
            terms: The caller's.
            namespace: Whose scores may be used.
            indices: The documents to score; all where None.

        Raises:
            TamisError: as `RerankService.rerank`.
        """
        texts = dict(enumerate(request.texts()))
        if indices is not None:
            texts = {index: texts[index] for index in indices}
        keys = self.keys.of(
            namespace, request.query, list(texts.values()), truncation_side=request.truncation_side
        )
        with self.read_through.look_up(
            dict(zip(texts, keys, strict=True)),
            deadline=terms.deadline,
            priority=terms.priority,
            use=request.cache if self._is_itself() else "off",
            uncut=not request.truncate,
        ) as looked_up:
            while missing := await looked_up.missing():
                wanted = {index: texts[index] for index in missing}
                scores = await self._compute(request, terms, wanted)
                may_keep = self._is_itself()  # asked again: the device may be lost meanwhile
                await looked_up.settle(scores, keep=may_keep)
        scores = looked_up.scores
        if not terms.partial:
            require_scored(scores.values())
        return {
            index: score
            if score.failure
            else PairScore(
                score.logit,
                score.n_tokens,
                score.truncated or request.is_beyond_characters(index),
                score.query_truncated,
                cached=index not in looked_up.computed,
                model=self.model_name,
            )
            for index, score in scores.items()
        }

    def statistics(self) -> SchedulerStatistics:
        """Where the scheduler stands now."""
        return self.scheduler.statistics()

    def _is_itself(self) -> bool:
        """What another device than the model's own computes, or another model, is not kept."""
        return self.scheduler.statistics().degraded != "stand_in" and self.is_as_keyed()

    async def _compute(
        self, request: RerankRequest, terms: Terms, texts: Mapping[int, str]
    ) -> dict[int, PairScore]:
        """Encode and submit documents; a part of an answer leaves out those that are too long."""
        refused = {} if request.truncate else _beyond_characters(request, texts)
        wanted = {index: text for index, text in texts.items() if index not in refused}
        try:
            pairs = await self._encode(request, terms, wanted) if wanted else {}
        except DeadlineExceededError as late:
            if not terms.partial:
                raise
            return refused | dict.fromkeys(wanted, PairScore.failed(late))
        if not request.truncate:
            refused |= self._too_long(pairs)
        fitting = {index: pair for index, pair in pairs.items() if index not in refused}
        if not fitting:
            return refused
        scores = await self.scheduler.submit(list(fitting.values()), terms, list(fitting))
        return refused | dict(zip(fitting, scores, strict=True))

    def _too_long(self, pairs: Mapping[int, EncodedPair]) -> dict[int, PairScore]:
        """Pairs that are refused one by one.

        Raises:
            TextTooLongError: the query is too long, and every pair has it.
        """
        refused: dict[int, PairScore] = {}
        for index, pair in pairs.items():
            try:
                require_uncut(pair, self.max_length, index)
            except TextTooLongError as error:
                if pair.query_truncated:
                    raise
                refused[index] = PairScore.failed(error)
        return refused

    async def _encode(
        self, request: RerankRequest, terms: Terms, texts: Mapping[int, str]
    ) -> dict[int, EncodedPair]:
        least = least_tokens(map(len, texts.values()), self.max_length)
        self.scheduler.require_room(least, terms)
        try:
            async with asyncio.timeout(_seconds_until(terms.deadline)):
                with self.timing.phase("encode"):
                    pairs = await self.encoding.encode(
                        self.tokenizer,
                        request,
                        texts,
                        caller=terms.caller,
                        truncate=request.truncate or terms.partial,
                    )
        except TimeoutError:
            raise DeadlineExceededError("the time for this request was over") from None
        n_tokens, at_most = sum(pair.n_tokens for pair in pairs.values()), self.max_request_tokens
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


def _beyond_characters(request: RerankRequest, texts: Mapping[int, str]) -> dict[int, PairScore]:
    most = request.max_document_characters
    return {
        index: PairScore.failed(too_many_characters(f"document {index}", len(text), most))
        for index, text in texts.items()
        if most is not None and len(text) > most
    }


def _seconds_until(deadline: float) -> float | None:
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())
