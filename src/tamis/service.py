"""Reranking for many callers: encode, submit, rank."""

import asyncio
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tamis.engine.pairs import EncodedPair, PairEncoder
from tamis.errors import QueueFullError, ShuttingDownError
from tamis.ranking import rank
from tamis.scheduler.scheduler import Scheduler, SchedulerStatistics
from tamis.types import RankedDocument, RerankRequest, RerankResult, Usage


class RerankService:
    """Answers rerank requests with one model. Belongs to one event loop.

    Args:
        max_waiting_characters: Text of all requests that wait for the tokenizer, at most; a
            request that is alone may have more.
    """

    def __init__(
        self,
        model_name: str,
        tokenizer: PairEncoder,
        scheduler: Scheduler,
        *,
        max_waiting_characters: int,
    ) -> None:
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
        pairs = await self._encode(request)
        logits = await self._scheduler.submit(pairs)
        places = rank(logits, top_n=request.top_n, threshold=request.threshold)
        return RerankResult(
            model=self._model_name,
            results=tuple(
                RankedDocument(
                    place.index, request.documents[place.index], place.logit, place.score
                )
                for place in places
            ),
            usage=_usage(pairs),
        )

    def statistics(self) -> SchedulerStatistics:
        """Where the scheduler stands now."""
        return self._scheduler.statistics()

    async def close(self) -> None:
        """Stop; callers still waiting get `ShuttingDownError`."""
        await self._scheduler.close()
        await asyncio.to_thread(self._tokenizer_thread.shutdown)

    async def _encode(self, request: RerankRequest) -> list[EncodedPair]:
        if not self._scheduler.statistics().running:
            raise ShuttingDownError("the server takes no new work")
        texts = request.texts()
        n_characters = len(request.query) + sum(map(len, texts))
        with self._admitted(n_characters):
            return await self._encode_in_thread(request, texts)

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
        self, request: RerankRequest, texts: list[str]
    ) -> list[EncodedPair]:
        return await asyncio.get_running_loop().run_in_executor(
            self._tokenizer_thread,
            lambda: self._tokenizer.encode(
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
