"""What the server adds to the engine's own time, and a worker process to that.

Usage: python -m benchmarks.server_overhead [--rounds N] [--model NAME]

The same requests of 1, 8 and 50 documents of the RAG mix go in turn to `Reranker` in this process
(tokenize, score, put in order), to a server with the model in its process, and to one with the
model in a worker process: one caller, for the time a request takes; then four callers to both
servers, for pairs a second. The ones that are not asked sleep. Run nothing else meanwhile.
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
from tamis import Reranker
from tamis.bench.latency import latency
from tamis.bench.own_server import own_server
from tamis.bench.workloads import Workload, rag_mix
from tamis.settings import DEFAULT_MODEL

REQUESTS = {1: 40, 8: 8, 50: 2}
"""How many a round, by the number of documents."""
CALLERS = 4
ENGINE, SERVER, WORKER = "engine", "server", "server with a worker"
SETTLE_SECONDS = 0.4
"""Until the threads of the model that was asked before sleep: OpenMP's wait actively at first."""

Ask = Callable[[Workload], object]


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    # else threads of the model that is not asked take cores from the other, by waiting actively
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    measured = side_by_side(options.model, options.rounds)
    for n_documents, found in measured.items():
        print(n_documents, "documents", found, flush=True)
    save("server_overhead", {"model": options.model, "requests": measured})
    return 0


def side_by_side(model: str, rounds: int) -> dict[str, Any]:
    """The engine and both servers, asked in turn."""
    name = f"--model.name={model}"
    with (
        Reranker(model) as reranker,
        own_server([name]) as here,
        own_server([name, "--scheduler.workers=1"]) as apart,
        httpx2.Client(timeout=600, trust_env=False) as client,
    ):
        servers = {SERVER: _asker(client, here.url), WORKER: _asker(client, apart.url)}
        asks = {ENGINE: lambda asked: reranker.rank(asked.query, asked.documents)} | servers
        return {
            str(n): summary(measure(asks, n, rounds), throughputs(servers, n, rounds))
            for n in REQUESTS
        }


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


def summary(seconds: dict[str, list[float]], rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of all ways, and of what each adds, request by request, to the one before it."""
    p50 = {name: latency(found).p50_seconds for name, found in seconds.items()}
    added = {
        f"{way} beside {base}": {
            "p50_added_ms": statistics.median(more - less for less, more in paired) * 1e3,
            "p50_added_percent": (statistics.median(more / less for less, more in paired) - 1)
            * 100,
        }
        for base, way in ((ENGINE, SERVER), (SERVER, WORKER))
        for paired in [list(zip(seconds[base], seconds[way], strict=True))]
    }
    pairs = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "n_requests": len(seconds[ENGINE]),
        "p50_seconds": p50,
        "added": added,
        "pairs_per_second": pairs,
        "pairs_per_second_lost_percent_by_a_worker": (1 - pairs[WORKER] / pairs[SERVER]) * 100,
    }


def _asker(client: httpx2.Client, url: str) -> Ask:
    def ask(workload: Workload) -> None:
        body = {"query": workload.query, "documents": list(workload.documents)}
        client.post(f"{url}/rerank", json=body).raise_for_status()

    return ask


if __name__ == "__main__":
    raise SystemExit(main())
