"""What it costs to have the model in a process of its own: tamis-mini in the server or a worker.

Usage: python -m benchmarks.worker_hop [--rounds N] [--model NAME]

Two servers with the same model, one with `scheduler.workers=0` and one with 1, get the same
requests of 1, 8 and 50 documents of the RAG mix in turn: one caller for the time a request takes,
then four for pairs a second. The same batches then go through both kinds of backend without a
server. The one that is not asked sleeps. Nothing else may run beside.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from benchmarks.results_file import save
from tamis.bench.latency import latency
from tamis.bench.own_server import own_server
from tamis.bench.workloads import Workload, rag_mix
from tamis.engine.backend import Backend
from tamis.engine.loading import load_model
from tamis.scheduler.scheduler import score_now
from tamis.settings import DEFAULT_MODEL, ModelSettings
from tamis.workers.crew import WorkerCrew

REQUESTS = {1: 20, 8: 4, 50: 1}
"""How many a round, by the number of documents."""
CALLERS = 4
HERE, WORKER = "in_process", "one_worker"
SETTLE_SECONDS = 0.4
"""Until the threads of the model that was asked before sleep: OpenMP's wait actively at first."""

Ask = Callable[[Workload], object]


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    # else threads of the model that is not asked take cores from the other, by waiting actively
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    measured = {
        "model": options.model,
        "requests": http(options.model, options.rounds),
        "batches": backends(options.model, options.rounds),
    }
    for part in ("requests", "batches"):
        for n_documents, found in measured[part].items():
            print(part, n_documents, "documents", found, flush=True)
    save("worker_hop", measured)
    return 0


def http(model: str, rounds: int) -> dict[str, Any]:
    """Both servers, asked in turn."""
    name = f"--model.name={model}"
    with (
        own_server([name]) as here,
        own_server([name, "--scheduler.workers=1"]) as apart,
        httpx2.Client(timeout=600, trust_env=False) as client,
    ):
        asks = {HERE: _asker(client, here.url), WORKER: _asker(client, apart.url)}
        return {
            str(n): summary(measure(asks, n, rounds), throughputs(asks, n, rounds), n)
            for n in REQUESTS
        }


def backends(model: str, rounds: int) -> dict[str, Any]:
    """Both backends, given the same pairs in turn."""
    settings = ModelSettings(name=model)
    loaded = load_model(settings)
    crew = WorkerCrew(settings, 1)
    crew.open()
    try:
        tokenizer, budget = loaded.tokenizer, loaded.max_batch_tokens

        def scorer(backend: Backend) -> Ask:
            return lambda asked: score_now(
                backend, tokenizer.encode(asked.query, asked.documents), max_batch_tokens=budget
            )

        asks = {HERE: scorer(loaded.backend), WORKER: scorer(crew.backends[0])}
        return {str(n): summary(measure(asks, n, rounds), {}, n) for n in REQUESTS}
    finally:
        crew.close()
        loaded.backend.close()


def measure(asks: dict[str, Ask], n_documents: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each request with one caller."""
    seconds: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(rounds):
        workloads = [rag_mix(n_documents, seed=seed) for seed in range(REQUESTS[n_documents])]
        for name in ordered(asks, number):
            time.sleep(SETTLE_SECONDS)
            asks[name](rag_mix(n_documents, seed=10_000))
            for workload in workloads:
                started = time.perf_counter()
                asks[name](workload)
                seconds[name].append(time.perf_counter() - started)
    return seconds


def throughputs(asks: dict[str, Ask], n_documents: int, rounds: int) -> dict[str, list[float]]:
    """Pairs a second of each round with several callers."""
    found: dict[str, list[float]] = {name: [] for name in asks}
    workloads = [rag_mix(n_documents, seed=seed) for seed in range(REQUESTS[n_documents])]
    for number in range(rounds):
        for name in ordered(asks, number):
            time.sleep(SETTLE_SECONDS)
            with ThreadPoolExecutor(CALLERS) as pool:
                started = time.perf_counter()
                list(pool.map(asks[name], workloads))
                spent = time.perf_counter() - started
            found[name].append(n_documents * len(workloads) / spent)
    return found


def ordered(asks: dict[str, Ask], number: int) -> Sequence[str]:
    """The ways, turned around in every other round."""
    return list(asks)[:: 1 if number % 2 == 0 else -1]


def summary(
    seconds: dict[str, list[float]], rates: dict[str, list[float]], n_documents: int
) -> dict[str, Any]:
    """Medians of both ways, and what the worker's adds."""
    p50 = {name: latency(found).p50_seconds for name, found in seconds.items()}
    result: dict[str, Any] = {
        "n_documents": n_documents,
        "n_requests": len(seconds[HERE]),
        "p50_seconds": p50,
        "p50_added_ms": (p50[WORKER] - p50[HERE]) * 1e3,
        "p50_added_percent": (p50[WORKER] / p50[HERE] - 1) * 100,
    }
    if rates:
        pairs = {name: statistics.median(found) for name, found in rates.items()}
        result["pairs_per_second"] = pairs
        result["pairs_per_second_lost_percent"] = (1 - pairs[WORKER] / pairs[HERE]) * 100
    return result


def _asker(client: httpx2.Client, url: str) -> Ask:
    def ask(workload: Workload) -> None:
        body = {"query": workload.query, "documents": list(workload.documents)}
        client.post(f"{url}/rerank", json=body).raise_for_status()

    return ask


if __name__ == "__main__":
    raise SystemExit(main())
