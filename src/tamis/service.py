"""Reranking for many callers: score in one stage or two, then put in order."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tamis.cascade import Cascade, StagedLogits, merge, one_stage, with_blank
from tamis.encoding import EncodingThread
from tamis.errors import ShuttingDownError, TamisError
from tamis.ranking import has_words, rank
from tamis.scheduler.jobs import Terms
from tamis.scheduler.scheduler import SchedulerStatistics
from tamis.stage import ModelStage, StageScores
from tamis.timing import PhaseObserver
from tamis.types import (
    RankedDocument,
    RerankRequest,
    RerankResult,
    UnscoredDocument,
    Usage,
)

_ENCODING_SHARE, _MOST_ENCODING_SECONDS = 0.05, 0.05
"""Of a request's time, and of time: what a part of an answer is given to be written and sent."""


@dataclass(frozen=True, slots=True)
class FirstStage:
    """The first-stage model of a cascade, and how many of its documents are kept."""

    stage: ModelStage
    cascade: Cascade


@dataclass(frozen=True, slots=True)
class _Scored:
    """A request's documents after all stages.

    Attributes:
        logits: Of all documents; NaN, and no place in the order, where there is none.
        scored_by: The model of each document's logit; None without a cascade and for a blank one.
        truncated: Whether each document was cut by the model whose logit it has.
        query_truncated: Whether that model was given a part of the query.
        failures: Why a document has no logit, by index.
        degraded: Whether a stage has left something out.
    """

    logits: StagedLogits
    scored_by: list[str | None]
    truncated: NDArray[np.bool_]
    query_truncated: NDArray[np.bool_]
    usage: Usage
    failures: Mapping[int, TamisError]
    degraded: bool


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
        scored = await self._score(request, self._terms(request, caller, max_caller_tokens))
        with self._timing.phase("rank"):
            return self._ranked(request, scored)

    def _ranked(self, request: RerankRequest, scored: _Scored) -> RerankResult:
        """The answer to a request, from its documents' logits."""
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
            model=self._stage.model_name,
            results=tuple(
                RankedDocument(
                    place.index,
                    request.documents[place.index],
                    place.logit,
                    place.score,
                    scored_by=scored.scored_by[place.index],
                    truncated=bool(scored.truncated[place.index]),
                    query_truncated=bool(scored.query_truncated[place.index]),
                )
                for place in places
            ),
            usage=scored.usage,
            logits=tuple(scored.logits.logits.tolist()),
            unscored=tuple(unscored[:n_left]),
            degraded=scored.degraded,
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

    async def _score(self, request: RerankRequest, terms: Terms) -> _Scored:
        """Logits of all documents; a blank one answers nothing, and no model has to read it."""
        texts = request.texts()
        places = [index for index, text in enumerate(texts) if has_words(text)]
        if len(places) == len(texts):
            return await self._score_documents(request, terms, places)
        scored = (
            await self._score_documents(request, terms, places) if places else _nothing_to_score()
        )
        names: list[str | None] = [None] * len(texts)
        cut = np.zeros((2, len(texts)), dtype=np.bool_)
        cut[:, places] = scored.truncated, scored.query_truncated
        for place, name in zip(places, scored.scored_by, strict=True):
            names[place] = name
        return _Scored(
            with_blank(scored.logits, places, len(texts)),
            names,
            truncated=cut[0],
            query_truncated=cut[1],
            usage=replace(scored.usage, n_pairs=len(texts)),
            failures={places[position]: error for position, error in scored.failures.items()},
            degraded=scored.degraded,
        )

    async def _score_documents(
        self, request: RerankRequest, terms: Terms, places: Sequence[int]
    ) -> _Scored:
        """Logits of some documents, in one stage or, beyond what a cascade keeps, in two."""
        namespace = "" if self._shared_cache else terms.caller
        first_stage = self._first_stage
        if first_stage is None or len(places) <= first_stage.cascade.keep:
            scores = await self._stage.score(request, terms, namespace=namespace, indices=places)
            name = None if first_stage is None else self._stage.model_name
            return _Scored(
                one_stage(scores.logits),
                [name] * len(places),
                scores.truncated,
                scores.query_truncated,
                _usage(scores),
                scores.failures,
                degraded=bool(scores.failures),
            )
        first = await first_stage.stage.score(request, terms, namespace=namespace, indices=places)
        found = np.flatnonzero(np.isfinite(first.logits))
        texts = request.texts()
        own = [texts[places[n]] for n in found.tolist()]
        kept = found[first_stage.cascade.select(first.logits[found], own)]
        second = await self._stage.score(
            request, terms, namespace=namespace, indices=[places[n] for n in kept.tolist()]
        )
        read = np.isfinite(second.logits)
        logits = merge(first.logits, kept[read], second.logits[read])
        names = [first_stage.stage.model_name, self._stage.model_name]
        return _Scored(
            logits,
            [names[int(is_second)] for is_second in logits.is_second],
            _of_both(first.truncated, second.truncated, kept, logits),
            _of_both(first.query_truncated, second.query_truncated, kept, logits),
            _usage_of_both(first, second, kept, logits),
            first.failures,
            degraded=bool(first.failures or second.failures),
        )


def _nothing_to_score() -> _Scored:
    none = np.zeros(0, dtype=np.bool_)
    logits = one_stage(np.zeros(0, dtype=np.float32))
    return _Scored(logits, [], none, none, Usage(0, 0, 0), {}, degraded=False)


def _usage(scores: StageScores) -> Usage:
    return Usage(
        n_pairs=len(scores.logits),
        n_tokens=int(scores.n_tokens.sum()),
        n_truncated=int(scores.truncated.sum()),
        n_cached=int(scores.cached.sum()),
        query_truncated=bool(scores.query_truncated.any()),
    )


def _of_both(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    kept: NDArray[np.intp],
    logits: StagedLogits,
) -> NDArray[np.bool_]:
    """What is true of each document by the model whose logit it has."""
    merged = first.copy()
    merged[kept] = np.where(logits.is_second[kept], second, first[kept])
    return merged


def _usage_of_both(
    first: StageScores, second: StageScores, kept: NDArray[np.intp], logits: StagedLogits
) -> Usage:
    """A document counts once: cut where its own model cut it, cached where neither computed."""
    cached = first.cached.copy()
    cached[kept] &= second.cached
    return Usage(
        n_pairs=len(first.logits),
        n_tokens=int(first.n_tokens.sum() + second.n_tokens.sum()),
        n_truncated=int(_of_both(first.truncated, second.truncated, kept, logits).sum()),
        n_cached=int(cached.sum()),
        query_truncated=bool(
            _of_both(first.query_truncated, second.query_truncated, kept, logits).any()
        ),
    )
