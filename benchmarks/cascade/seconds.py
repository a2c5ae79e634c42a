"""Seconds of one request, with and without a cascade, on queries of a set and on the RAG mix."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cascade.quality import KEPT, RETRIEVAL, Query
from benchmarks.cascade.stages import FIRST, SECOND, load_stage
from tamis.bench.workloads import rag_mix
from tamis.cascade import Cascade
from tamis.engine.loading import LoadedModel, load_model
from tamis.reranker import Reranker
from tamis.settings import DEFAULT_MODEL, DtypeName, ModelSettings

CLOCK = time.process_time
"""CPU seconds of both cores together: other work on the machine moves them little, and where there
is none the time on the wall is about half of them."""
Key = str
"""`first stage|keep`; `all` stands for the second stage alone."""
ALL = "all"
LARGE_KEPT = (0, 5, 10, 20, 30)
N_LARGE_DOCUMENTS = 50


@dataclass(frozen=True, slots=True)
class Way:
    """A way to rank a request.

    Attributes:
        n_documents: Of the request's first documents that it reads at all; None for all.
    """

    reranker: Reranker
    n_documents: int | None = None


def time_set(queries: Sequence[Query], work: Path) -> dict[Key, list[float]]:
    """Seconds of every query in every way, query by query in turn."""
    second = load_stage(SECOND, work)
    ways = {ALL: Way(Reranker(second))}
    for keep in KEPT:
        if keep:
            ways[f"{RETRIEVAL}|{keep}"] = Way(Reranker(second), keep)
    for stage in FIRST:
        ways |= _cascades(stage.name, load_stage(stage, work), second, KEPT)
    return _in_turn(ways, [(query.text, query.best_first()) for query in queries])


def time_large(folder: Path, work: Path, rounds: int) -> dict[Key, float]:
    """Median CPU seconds of the RAG mix: tamis-mini before a large model of random weights."""
    mix = rag_mix(N_LARGE_DOCUMENTS)
    large = open_model(str(folder), "int8", work)
    ways = {ALL: Way(Reranker(large))}
    for dtype in ("float32", "int8"):
        first = open_model(DEFAULT_MODEL, dtype, work)
        ways |= _cascades(f"tamis-mini {dtype}", first, large, LARGE_KEPT)
    taken = _in_turn(ways, [(mix.query, list(mix.documents))] * rounds)
    return {key: round(statistics.median(seconds), 3) for key, seconds in taken.items()}


def open_model(name: str, dtype: DtypeName, work: Path) -> LoadedModel:
    """A model on ctranslate2."""
    return load_model(
        ModelSettings(
            name=name, runtime="ctranslate2", device="cpu", dtype=dtype, cache_dir=work / "cache"
        )
    )


def _cascades(
    name: str, first: LoadedModel, second: LoadedModel, kept: Sequence[int]
) -> dict[Key, Way]:
    """A way for each number kept; 0 is the first stage alone."""
    return {
        f"{name}|{keep}": Way(
            Reranker(second, cascade=Cascade(keep), first_stage=first) if keep else Reranker(first)
        )
        for keep in kept
    }


def _in_turn(
    ways: dict[Key, Way],
    requests: Sequence[tuple[str, list[str]]],
) -> dict[Key, list[float]]:
    """Seconds of each request in each way, after some that do not count."""
    taken: dict[Key, list[float]] = {key: [] for key in ways}
    for way in ways.values():
        way.reranker.rank("warm up", ["a few", "short texts"])
    ways[ALL].reranker.rank(*requests[0])
    for query, documents in requests:
        for key, way in ways.items():
            started = CLOCK()
            way.reranker.rank(query, documents[: way.n_documents])
            taken[key].append(round(CLOCK() - started, 4))
    return taken
