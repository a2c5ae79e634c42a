"""Reranking for many callers: encode, submit, rank."""

import asyncio
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tamis.cascade import Cascade, StagedLogits, merge, one_stage
from tamis.engine.pairs import EncodedPair, PairEncoder
from tamis.errors import QueueFullError, ShuttingDownError
from tamis.ranking import rank
from tamis.scheduler.scheduler import Scheduler, SchedulerStatistics
from tamis.types import RankedDocument, RerankRequest, RerankResult, Usage


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
        scored_by: The model of each document's logit; None without a cascade.
    """

    logits: StagedLogits
    scored_by: list[str | None]
    usage: Usage


class RerankService:
    """Answers rerank requests with one model. Belongs to one event loop.

    Args:
        max_waiting_characters: Text of all requests that wait for the tokenizer, at most; a
            request that is alone may have more.
        first_stage: The cheap half of a cascade; None where the model reads every document.
    """

    def __init__(
        self,
        model_name: str,
        tokenizer: PairEncoder,
        scheduler: Scheduler,
        *,
        max_waiting_characters: int,
        first_stage: FirstStage | None = None,
    ) -> None:
        self._first_stage = first_stage
        self._max_waiting_characters = max_waiting_characters
        self._n_waiting_characters = 0
        self._model_name = model_name
        self._tokenizer = tokenizer
        self._scheduler = scheduler
        self._tokenizer_thread = ThreadPoolExecutor(1, thread_name_prefix="tamis-tokenizer")

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Score all documents of a request and put them in order.

        Raises:
            RequestError: a document has no text or a text does not fit.
            UnavailableError: there is no room, or the server is going down.
            InferenceError: the model failed on this request.
        """
        pairs = await self._encode(request, self._tokenizer)
        scored = await self._score(request, pairs)
        places = rank(
            scored.logits.logits,
            top_n=request.top_n,
            threshold=request.threshold,
            order=scored.logits.order,
        )
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
        )

    def statistics(self) -> SchedulerStatistics:
        """Where the schedulers stand now, together; running if every one is."""
        each = [scheduler.statistics() for scheduler in self._schedulers()]
        return SchedulerStatistics(
            all(one.running for one in each),
            sum(one.n_queued_jobs for one in each),
            sum(one.n_tokens for one in each),
        )

    async def close(self) -> None:
        """Stop; callers still waiting get `ShuttingDownError`."""
        for scheduler in self._schedulers():
            await scheduler.close()
        await asyncio.to_thread(self._tokenizer_thread.shutdown)

    def _schedulers(self) -> list[Scheduler]:
        first = [] if self._first_stage is None else [self._first_stage.scheduler]
        return [*first, self._scheduler]

    async def _score(self, request: RerankRequest, pairs: list[EncodedPair]) -> _Scored:
        """Logits of all documents, in one stage or, beyond what a cascade keeps, in two."""
        stage, n_pairs = self._first_stage, len(pairs)
        if stage is None or n_pairs <= stage.cascade.keep:
            logits = one_stage(await self._scheduler.submit(pairs))
            name = None if stage is None else self._model_name
            return _Scored(logits, [name] * n_pairs, _usage(pairs))
        first_pairs = await self._encode(request, stage.tokenizer)
        first = await stage.scheduler.submit(first_pairs)
        kept = stage.cascade.select(first)
        kept_pairs = [pairs[index] for index in kept]
        logits = merge(first, kept, await self._scheduler.submit(kept_pairs))
        rest_pairs = [first_pairs[index] for index in np.flatnonzero(~logits.is_second)]
        return _Scored(
            logits,
            [self._model_name if second else stage.model_name for second in logits.is_second],
            Usage(
                n_pairs=n_pairs,
                n_tokens=_usage(first_pairs).n_tokens + _usage(kept_pairs).n_tokens,
                n_truncated=_usage(kept_pairs).n_truncated + _usage(rest_pairs).n_truncated,
            ),
        )

    async def _encode(self, request: RerankRequest, tokenizer: PairEncoder) -> list[EncodedPair]:
        if not self.statistics().running:
            raise ShuttingDownError("the server takes no new work")
        texts = request.texts()
        n_characters = len(request.query) + sum(map(len, texts))
        with self._admitted(n_characters):
            return await self._encode_in_thread(request, texts, tokenizer)

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
