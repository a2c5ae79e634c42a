"""Reranking for many callers: score in one stage or two, then put in order."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tamis.cascade import Cascade, merge
from tamis.encoding import EncodingThread
from tamis.engine.pairs import logits_of
from tamis.errors import ShuttingDownError
from tamis.ranking import BLANK_LOGIT, best_first, has_words, rank
from tamis.scheduler.jobs import Terms
from tamis.scheduler.scheduler import SchedulerStatistics
from tamis.stage import ModelStage
from tamis.timing import PhaseObserver
from tamis.types import (
    PairScore,
    RankedDocument,
    RerankRequest,
    RerankResult,
    UnscoredDocument,
    Usage,
)

_ENCODING_SHARE, _MOST_ENCODING_SECONDS = 0.05, 0.05
"""Of a request's time, and of time: what a part of an answer is given to be written and sent."""

_BLANK = PairScore(BLANK_LOGIT, 0, truncated=False)
"""Of a document without words: it answers nothing."""


@dataclass(frozen=True, slots=True)
class FirstStage:
    """The first-stage model of a cascade, and how many of its documents are kept."""

    stage: ModelStage
    cascade: Cascade


class RerankService:
    """Answers rerank requests with one model. Belongs to one event loop.

    Args:
        stage: The model.
        encoding: What all stages tokenize with; closed with the service.
        timeout_seconds: What a request gets that asks for no less.
        shared_cache: Whether callers may get scores that others have paid for.
        first_stage: The cheap half of a cascade; None where the model reads every document.
        timing: Hears how long putting in order takes.
    """

    def __init__(
        self,
        stage: ModelStage,
        encoding: EncodingThread,
        *,
        timeout_seconds: float,
        shared_cache: bool = False,
        first_stage: FirstStage | None = None,
        timing: PhaseObserver | None = None,
    ) -> None:
        self._stage = stage
        self._encoding = encoding
        self._timeout_seconds = timeout_seconds
        self._shared_cache = shared_cache
        self._first_stage = first_stage
        self._timing = timing or PhaseObserver()

    async def rerank(
        self, request: RerankRequest, *, caller: str = "", max_caller_tokens: int | None = None
    ) -> RerankResult:
        """Score all documents of a request and put them in order.

        Args:
            request: The request.
            caller: The caller's name; callers share the model evenly, and unless the cache is
                shared do not use each other's scores.
            max_caller_tokens: Tokens the caller may have waiting or running; None for no bound.

        Raises:
            RequestError: a document has no text, a text does not fit, or cannot be scored.
            UnavailableError: there is no room, or the server is going down.
            DeadlineExceededError: it cannot be, or was not, done in time.
            OutOfMemoryError: a document is too large for every device.
            InferenceError: the model failed as a whole.
        """
        if not self.statistics().running:
            raise ShuttingDownError("the server takes no new work")
        terms = self._terms(request, caller, max_caller_tokens)
        scores, order = await self._score(request, terms)
        with self._timing.phase("rank"):
            return self._ranked(request, scores, order)

    def _ranked(
        self, request: RerankRequest, scores: Sequence[PairScore], order: Sequence[int]
    ) -> RerankResult:
        """The answer to a request, from its documents' scores and their order."""
        places = rank(
            logits_of(scores),
            top_n=request.top_n,
            threshold=request.threshold,
            order=np.array(order, dtype=np.intp),
        )
        unscored = [
            UnscoredDocument(index, request.documents[index], one.failure.code, str(one.failure))
            for index, one in enumerate(scores)
            if one.failure is not None and not one.has_logit
        ]
        n_left = len(unscored) if request.top_n is None else request.top_n - len(places)
        return RerankResult(
            model=self._stage.model_name,
            results=tuple(
                RankedDocument(
                    index,
                    request.documents[index],
                    scores[index].logit,
                    score,
                    scored_by=scores[index].model if self._first_stage else None,
                    truncated=scores[index].truncated,
                    query_truncated=scores[index].query_truncated,
                )
                for index, score in places
            ),
            usage=Usage(
                n_pairs=len(scores),
                n_tokens=sum(one.n_tokens for one in scores),
                n_truncated=sum(one.truncated for one in scores),
                n_cached=sum(one.cached for one in scores),
                query_truncated=any(one.query_truncated for one in scores),
            ),
            logits=tuple(one.logit for one in scores),
            unscored=tuple(unscored[:n_left]),
            degraded=any(one.failure for one in scores),
        )

    def statistics(self) -> SchedulerStatistics:
        """Where the schedulers stand now, together; running if every one is."""
        each = [stage.statistics() for stage in self._stages()]
        return SchedulerStatistics(
            all(one.running for one in each),
            sum(one.n_queued_jobs for one in each),
            sum(one.n_tokens for one in each),
            self._stage.statistics().tokens_per_second,
            next((one.degraded for one in each if one.degraded), None),
        )

    async def close(self) -> None:
        """Stop; callers still waiting get `ShuttingDownError`."""
        for stage in self._stages():
            await stage.scheduler.close()
        await self._encoding.close()

    def _stages(self) -> list[ModelStage]:
        first = [] if self._first_stage is None else [self._first_stage.stage]
        return [*first, self._stage]

    def _terms(self, request: RerankRequest, caller: str, max_caller_tokens: int | None) -> Terms:
        allowed = min(request.timeout_seconds or self._timeout_seconds, self._timeout_seconds)
        if request.partial:  # what there is then still has to reach the caller in time
            allowed -= min(_ENCODING_SHARE * allowed, _MOST_ENCODING_SECONDS)
        deadline = time.monotonic() + allowed
        return Terms(caller, request.priority, deadline, request.partial, max_caller_tokens)

    async def _score(
        self, request: RerankRequest, terms: Terms
    ) -> tuple[list[PairScore], list[int]]:
        """All documents' scores and their order; no model has to read one without words."""
        texts = request.texts()
        worded = [index for index, text in enumerate(texts) if has_words(text)]
        first_stage = self._first_stage
        if first_stage is None or len(worded) <= first_stage.cascade.keep:
            scores = await self._stage.score(
                request, terms, namespace=self._namespace(terms), indices=worded
            )
            order = [worded[n] for n in best_first(logits_of(scores.values())).tolist()]
        else:
            scores, order = await self._score_twice(first_stage, request, terms, worded)
        blank = [index for index in range(len(texts)) if index not in scores]
        scores |= dict.fromkeys(blank, _BLANK)
        return [scores[index] for index in range(len(texts))], order + blank

    async def _score_twice(
        self, first_stage: FirstStage, request: RerankRequest, terms: Terms, indices: Sequence[int]
    ) -> tuple[dict[int, PairScore], list[int]]:
        """Scores of a cascade on the second model's scale, and their order."""
        namespace, texts = self._namespace(terms), request.texts()
        first = await first_stage.stage.score(request, terms, namespace=namespace, indices=indices)
        found = [index for index, one in first.items() if one.has_logit]
        logits = logits_of(first[index] for index in found)
        kept = first_stage.cascade.select(logits, [texts[index] for index in found]).tolist()
        second = await self._stage.score(
            request, terms, namespace=namespace, indices=[found[n] for n in kept]
        )
        read = [n for n in kept if second[found[n]].has_logit]
        logits, order = merge(
            logits, np.array(read, dtype=np.intp), logits_of(second[found[n]] for n in read)
        )
        merged = dict(zip(found, logits.tolist(), strict=True))
        scores = {
            index: _of_both(one, second.get(index), merged[index]) if one.has_logit else one
            for index, one in first.items()
        }
        return scores, [found[n] for n in order.tolist()]

    def _namespace(self, terms: Terms) -> str:
        return "" if self._shared_cache else terms.caller


def _of_both(first: PairScore, second: PairScore | None, logit: float) -> PairScore:
    """What became of a pair in a cascade: cut where its own model cut it; cached by both."""
    if second is None:
        return replace(first, logit=logit)
    return replace(
        second if second.has_logit else first,
        logit=logit,
        n_tokens=first.n_tokens + second.n_tokens,
        cached=first.cached and second.cached,
        failure=second.failure,
    )
