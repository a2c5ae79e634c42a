"""`GET /v1/stats`: the server in numbers, for a page to draw."""

import time
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import tamis
from tamis.assembly.served import ServedModel
from tamis.cache.scores import ScoreCache
from tamis.errors import NotReadyError
from tamis.observability.samples import Samples
from tamis.relevance.summary import RelevanceReport, report
from tamis.server.answers import json_answer
from tamis.server.context import ServerContext
from tamis.server.keys import Caller
from tamis.server.lifespan import ModelLife

_REQUESTS = "tamis_requests"
_SECONDS = "tamis_request_duration_seconds"
_BATCH = "tamis_batch_"
_HITS, _MISSES = "tamis_cache_hits", "tamis_cache_misses"
_METRICS = (
    *(_REQUESTS, _SECONDS, _HITS, _MISSES),
    *(_BATCH + what for what in ("pairs", "tokens", "requests", "duration_seconds")),
)


class ModelReport(msgspec.Struct):
    """A model that is loaded."""

    name: str
    runtime: str
    device: str
    dtype: str
    max_length: Annotated[int, msgspec.Meta(description="Tokens it reads of a pair.")]


class RequestsReport(msgspec.Struct):
    """Rerank requests answered, since the start."""

    dialect: str
    status: str
    requests: int


class LatencyReport(msgspec.Struct):
    """Seconds from a request to its answer; quantiles as near as the histogram's buckets."""

    dialect: str
    requests: int
    mean_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


class QueueReport(msgspec.Struct):
    """What waits or runs."""

    requests: int
    tokens: int
    max_tokens: int
    tokens_per_second: Annotated[
        float | None, msgspec.Meta(description="Lately, while there was work.")
    ]


class BatchesReport(msgspec.Struct):
    """Forward passes since the start; means are null before the first."""

    batches: int
    mean_pairs: float | None
    mean_tokens: float | None
    mean_requests: float | None
    mean_seconds: float | None
    fill: Annotated[
        float | None, msgspec.Meta(description="Mean tokens as a share of the token budget.")
    ]


class StoreReport(msgspec.Struct):
    """A store of the cache."""

    name: str
    state: str
    entries: int | None
    bytes: int | None
    hits: int
    misses: int


class Stats(msgspec.Struct):
    """The server in numbers; all callers together, except `relevance.series`."""

    version: str
    state: str
    uptime_seconds: float
    model: ModelReport | None
    first_stage: ModelReport | None
    requests: list[RequestsReport]
    latency: list[LatencyReport]
    queue: QueueReport | None
    batches: BatchesReport
    cache: Annotated[
        list[StoreReport] | None, msgspec.Meta(description="Null before the model is ready.")
    ]
    relevance: Annotated[
        RelevanceReport | None, msgspec.Meta(description="Null where it cannot be made.")
    ]


async def stats(request: Request) -> Response:
    """Everything; of the ranking's series only the caller's own, where there are keys."""
    context = ServerContext.of(request)
    caller: Caller = request.state.caller
    has_keys = context.settings.server.keys_file is not None
    assembly, samples = context.assembly, Samples(context.metrics.registry, _METRICS)
    relevance = None
    with context.metrics.faults.contained("stats"):
        relevance = report(
            context.watch.monitor,
            threshold=context.settings.relevance.threshold,
            caller=caller.name if has_keys else None,
        )
    shown = Stats(
        version=tamis.__version__,
        state=context.life.state,
        uptime_seconds=time.monotonic() - context.started,
        model=_model(assembly.default.model),
        first_stage=_model(assembly.default.first_stage),
        requests=[
            RequestsReport(labels["dialect"], labels["status"], int(value))
            for labels, value in samples.of(f"{_REQUESTS}_total")
        ],
        latency=_latency(samples),
        queue=_queue(context.life, context.settings.scheduler.max_queued_tokens),
        batches=_batches(samples, _budget(context)),
        cache=await _cache(assembly.cache, samples),
        relevance=relevance,
    )
    return json_answer(shown)


def _model(model: ServedModel | None) -> ModelReport | None:
    if model is None:
        return None
    facts = model.facts
    return ModelReport(facts.name, facts.runtime, facts.device, facts.dtype, facts.max_length)


def _latency(samples: Samples) -> list[LatencyReport]:
    return [
        LatencyReport(
            labels["dialect"],
            int(n),
            samples.mean(_SECONDS, **labels),
            *samples.quantiles(_SECONDS, (0.5, 0.95, 0.99), **labels),
        )
        for labels, n in samples.of(f"{_SECONDS}_count")
    ]


def _queue(life: ModelLife, max_tokens: int) -> QueueReport | None:
    try:
        now = life.service.statistics()
    except NotReadyError:
        return None
    return QueueReport(now.n_queued_jobs, now.n_tokens, max_tokens, now.tokens_per_second)


def _batches(samples: Samples, budget: int | None) -> BatchesReport:
    tokens = samples.mean(f"{_BATCH}tokens")
    return BatchesReport(
        batches=int(samples.one(f"{_BATCH}pairs_count")),
        mean_pairs=samples.mean(f"{_BATCH}pairs"),
        mean_tokens=tokens,
        mean_requests=samples.mean(f"{_BATCH}requests"),
        mean_seconds=samples.mean(f"{_BATCH}duration_seconds"),
        fill=None if tokens is None or not budget else tokens / budget,
    )


def _budget(context: ServerContext) -> int | None:
    """Tokens of one forward pass, at most; None while nobody knows."""
    model = context.assembly.default.model
    return context.settings.scheduler.max_batch_tokens or (
        None if model is None else model.facts.max_batch_tokens
    )


async def _cache(cache: ScoreCache | None, samples: Samples) -> list[StoreReport] | None:
    if cache is None:
        return None
    return [
        StoreReport(
            name=store.name,
            state=store.state,
            entries=store.n_entries,
            bytes=store.n_bytes,
            hits=int(samples.one(f"{_HITS}_total", store=store.name)),
            misses=int(samples.one(f"{_MISSES}_total", store=store.name)),
        )
        for store in await cache.statistics()
    ]
