"""Reranking for many callers: encode, submit, rank."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from tamis.engine.pairs import EncodedPair, PairEncoder
from tamis.errors import ShuttingDownError
from tamis.ranking import rank
from tamis.scheduler.scheduler import Scheduler, SchedulerStatistics
from tamis.types import RankedDocument, RerankRequest, RerankResult, Usage, document_text


class RerankService:
    """Answers rerank requests with one model. Belongs to one event loop."""

    def __init__(self, model_name: str, tokenizer: PairEncoder, scheduler: Scheduler) -> None:
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
        texts = [document_text(document, i) for i, document in enumerate(request.documents)]
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
