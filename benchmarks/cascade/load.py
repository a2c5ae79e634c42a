"""Two models on the same cores under load: computing at once, or in turn."""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.cascade.seconds import open_model
from tamis.bench.workloads import rag_mix
from tamis.cascade import Cascade
from tamis.engine.loading import LoadedModel
from tamis.scheduler.execution import BatchRunner
from tamis.scheduler.scheduler import Scheduler
from tamis.service import FirstStage, RerankService
from tamis.settings import DEFAULT_MODEL
from tamis.types import RerankRequest

N_DOCUMENTS, KEEP = 20, 5
REQUESTS = {1: 3, 4: 8}
"""How many requests are sent, by the number of callers at a time."""
WAYS = ("at once", "in turn")


def measure_load(folder: Path, work: Path, rounds: int) -> dict[str, Any]:
    """Requests a second and p50 of both ways, round by round in turn.

    The service is the server's own, without HTTP: tamis-mini before a large model of random
    weights in int8.
    """
    first = open_model(DEFAULT_MODEL, "float32", work)
    large = open_model(str(folder), "int8", work)
    runs: dict[str, dict[str, list[tuple[float, list[float]]]]] = {}
    asyncio.run(_serve(first, large, WAYS[0], 1, 1))  # warm-up
    for number in range(rounds):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            for callers, n_requests in REQUESTS.items():
                run = asyncio.run(_serve(first, large, way, callers, n_requests))
                runs.setdefault(f"{callers} at a time", {}).setdefault(way, []).append(run)
                print(f"round {number + 1}: {callers} callers {way} {run[0]:.3f}/s", flush=True)
    found: dict[str, Any] = {"documents": N_DOCUMENTS, "keep": KEEP, "rounds": rounds}
    for callers, ways in runs.items():
        found[callers] = {
            way: {
                "requests_per_second": [round(rate, 3) for rate, _ in taken],
                "requests_per_second_median": round(statistics.median(r for r, _ in taken), 3),
                "p50_seconds": round(statistics.median(s for _, each in taken for s in each), 3),
            }
            for way, taken in ways.items()
        }
    return found


async def _serve(
    first: LoadedModel, large: LoadedModel, way: str, callers: int, n_requests: int
) -> tuple[float, list[float]]:
    """Requests a second, and the seconds of each, of callers in a closed loop."""
    turn = Lock() if way == "in turn" else nullcontext()
    schedulers = [
        Scheduler(
            BatchRunner(model.backend, max_batch_tokens=model.facts.max_batch_tokens),
            max_queued_tokens=1_000_000,
            turn=turn,
        )
        for model in (first, large)
    ]
    async with AsyncExitStack() as stack:
        for scheduler in schedulers:
            scheduler.start()
        service = RerankService(
            large.facts.name,
            large.tokenizer,
            schedulers[1],
            max_waiting_characters=10_000_000,
            timeout_seconds=600,
            least_document_room=64,
            first_stage=FirstStage(first.facts.name, first.tokenizer, schedulers[0], Cascade(KEEP)),
        )
        stack.push_async_callback(service.close)
        waiting = [rag_mix(N_DOCUMENTS, seed=seed) for seed in range(n_requests)]
        seconds: list[float] = []

        async def call() -> None:
            while waiting:
                work = waiting.pop()
                began = time.perf_counter()
                await service.rerank(RerankRequest(work.query, work.documents))
                seconds.append(time.perf_counter() - began)

        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        return n_requests / (time.perf_counter() - started), seconds
