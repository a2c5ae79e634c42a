"""Reranking for many callers: encode, submit, rank."""

import asyncio
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tamis.cascade import Cascade, StagedLogits, merge, one_stage
from tamis.engine.pairs import EncodedPair, PairEncoder
from tamis.errors import QueueFullError, RequestTooLargeError, ShuttingDownError, TamisError
from tamis.ranking import rank
from tamis.scheduler.jobs import Terms
from tamis.scheduler.scheduler import Scheduler, SchedulerStatistics
from tamis.types import (
    RankedDocument,
    RerankRequest,
    RerankResult,
    UnscoredDocument,
    Usage,
)

MOST_CHARACTERS_PER_TOKEN = 16
"""On the average of a text: XLM-R's longest piece. An estimate must not refuse what would fit."""


@dataclass(frozen=True, slots=True)
class FirstStage:
    """The cheap model of a cascade, and how much of its order goes on."""

    model_name: str
    tokenizer: PairEncoder
    scheduler: Scheduler
    cascade: Cascade


@dataclass(frozen=True, slots=True)
class _Scored:
    """A request's documents after all stages.

    Attributes:
        logits: Of all documents; NaN, and no place in the order, where there is none.
        scored_by: The model of each document's logit; None without a cascade.
        failures: Why a document has no logit, by index.
        degraded: Whether a stage has left something out.
    """

    logits: StagedLogits
    scored_by: list[str | None]
    usage: Usage
    failures: Mapping[int, TamisError]
    degraded: bool


class RerankService:
    """Answers rerank requests with one model. Belongs to one event loop.

    Args:
        max_waiting_characters: Text of all requests that wait for the tokenizer, at most; a
            request that is alone may have more.
        timeout_seconds: What a request gets that asks for no less.
        least_document_room: Tokens of a document that are never cut away.
        max_request_tokens: Tokens of one request's pairs; None for no bound but the queue's.
        first_stage: The cheap half of a cascade; None where the model reads every document.
    """

    def __init__(
        self,
        model_name: str,
        tokenizer: PairEncoder,
        scheduler: Scheduler,
        *,
        max_waiting_characters: int,
        timeout_seconds: float,
        least_document_room: int,
        max_request_tokens: int | None = None,
        first_stage: FirstStage | None = None,
    ) -> None:
        self._least_document_room = least_document_room
        self._max_request_tokens = max_request_tokens
        self._timeout_seconds = timeout_seconds
        self._first_stage = first_stage
        self._max_waiting_characters = max_waiting_characters
        self._n_waiting_characters = 0
        self._model_name = model_name
        self._tokenizer = tokenizer
        self._scheduler = scheduler
        self._tokenizer_thread = ThreadPoolExecutor(1, thread_name_prefix="tamis-tokenizer")

    async def rerank(
        self, request: RerankRequest, *, flow: str = "", max_flow_tokens: int | None = None
    ) -> RerankResult:
        """Score all documents of a request and put them in order.

        Args:
            request: What is asked.
            flow: Who asks: callers share the model evenly.
            max_flow_tokens: Tokens that who asks may have waiting or running; None for no bound.

        Raises:
            RequestError: a document has no text, a text does not fit, or cannot be scored.
            UnavailableError: there is no room, or the server is going down.
            DeadlineExceededError: it cannot be, or was not, done in time.
            OutOfMemoryError: a document is too large for every device.
            InferenceError: the model failed as a whole.
        """
        allowed = request.timeout_seconds or self._timeout_seconds
        deadline = time.monotonic() + min(allowed, self._timeout_seconds)
        terms = Terms(flow, request.priority, deadline, request.partial, max_flow_tokens)
        self._schedulers()[0].require_room(self._least_tokens(request), terms)
        pairs = await self._encode(request, self._tokenizer)
        scored = await self._score(request, pairs, terms)
        places = rank(
            scored.logits.logits,
            top_n=request.top_n,
            threshold=request.threshold,
            order=scored.logits.order,
        )
        unscored = [
            UnscoredDocument(index, request.documents[index], error.code, str(error))
            for index, error in sorted(scored.failures.items())
        ]
        n_left = len(unscored) if request.top_n is None else request.top_n - len(places)
        return RerankResult(
            model=self._model_name,
            results=tuple(
                RankedDocument(
                    place.index,
                    request.documents[place.index],
                    place.logit,
                    place.score,
                    scored_by=scored.scored_by[place.index],
                )
                for place in places
            ),
            usage=scored.usage,
            unscored=tuple(unscored[:n_left]),
            degraded=scored.degraded,
        )

    def statistics(self) -> SchedulerStatistics:
        """Where the schedulers stand now, together; running if every one is."""
        each = [scheduler.statistics() for scheduler in self._schedulers()]
        return SchedulerStatistics(
            all(one.running for one in each),
            sum(one.n_queued_jobs for one in each),
            sum(one.n_tokens for one in each),
            self._scheduler.statistics().tokens_per_second,
            next((one.degraded for one in each if one.degraded), None),
        )

    async def close(self) -> None:
        """Stop; callers still waiting get `ShuttingDownError`."""
        for scheduler in self._schedulers():
            await scheduler.close()
        await asyncio.to_thread(self._tokenizer_thread.shutdown)

    def _schedulers(self) -> list[Scheduler]:
        first = [] if self._first_stage is None else [self._first_stage.scheduler]
        return [*first, self._scheduler]

    def _least_tokens(self, request: RerankRequest) -> int:
        """Tokens that a request will have at least, before it is tokenized."""
        most = self._least_document_room * MOST_CHARACTERS_PER_TOKEN
        characters = sum(min(most, len(text)) for text in request.texts())
        return len(request.documents) + characters // MOST_CHARACTERS_PER_TOKEN

    async def _score(
        self, request: RerankRequest, pairs: list[EncodedPair], terms: Terms
    ) -> _Scored:
        """Logits of all documents, in one stage or, beyond what a cascade keeps, in two."""
        stage, n_pairs = self._first_stage, len(pairs)
        if stage is None or n_pairs <= stage.cascade.keep:
            scores = await self._scheduler.submit(pairs, terms)
            name = None if stage is None else self._model_name
            logits = one_stage(scores.logits)
            degraded = bool(scores.failures)
            return _Scored(logits, [name] * n_pairs, _usage(pairs), scores.failures, degraded)
        first_pairs = await self._encode(request, stage.tokenizer)
        first = await stage.scheduler.submit(first_pairs, terms)
        found = np.flatnonzero(np.isfinite(first.logits))
        kept = found[stage.cascade.select(first.logits[found])]
        kept_pairs = [pairs[index] for index in kept]
        second = await self._scheduler.submit(kept_pairs, terms, kept.tolist())
        read = np.isfinite(second.logits)
        logits = merge(first.logits, kept[read], second.logits[read])
        rest_pairs = [first_pairs[index] for index in np.flatnonzero(~logits.is_second)]
        return _Scored(
            logits,
            [self._model_name if second else stage.model_name for second in logits.is_second],
            Usage(
                n_pairs=n_pairs,
                n_tokens=_usage(first_pairs).n_tokens + _usage(kept_pairs).n_tokens,
                n_truncated=_usage(kept_pairs).n_truncated + _usage(rest_pairs).n_truncated,
            ),
            first.failures,
            degraded=bool(first.failures or second.failures),
        )

    async def _encode(self, request: RerankRequest, tokenizer: PairEncoder) -> list[EncodedPair]:
        if not self.statistics().running:
            raise ShuttingDownError("the server takes no new work")
        texts = request.texts()
        n_characters = len(request.query) + sum(map(len, texts))
        with self._admitted(n_characters):
            pairs = await self._encode_in_thread(request, texts, tokenizer)
        n_tokens, at_most = sum(pair.n_tokens for pair in pairs), self._max_request_tokens
        if at_most is not None and n_tokens > at_most:
            raise RequestTooLargeError(
                f"the request has {n_tokens:,} tokens, at most {at_most:,} allowed; "
                "split the request"
            )
        return pairs

    @contextmanager
    def _admitted(self, n_characters: int) -> Generator[None]:
        waiting = self._n_waiting_characters
        if waiting and waiting + n_characters > self._max_waiting_characters:
            raise QueueFullError(
                f"{waiting:,} characters wait to be tokenized and {n_characters:,} more came, "
                f"at most {self._max_waiting_characters:,} may; try again later"
            )
        self._n_waiting_characters += n_characters
        try:
            yield
        finally:
            self._n_waiting_characters -= n_characters

    async def _encode_in_thread(
        self, request: RerankRequest, texts: list[str], tokenizer: PairEncoder
    ) -> list[EncodedPair]:
        return await asyncio.get_running_loop().run_in_executor(
            self._tokenizer_thread,
            lambda: tokenizer.encode(
                request.query,
                texts,
                truncate=request.truncate,
                truncation_side=request.truncation_side,
            ),
        )


def _usage(pairs: list[EncodedPair]) -> Usage:
    return Usage(
        n_pairs=len(pairs),
        n_tokens=sum(pair.n_tokens for pair in pairs),
        n_truncated=sum(pair.truncated for pair in pairs),
    )
