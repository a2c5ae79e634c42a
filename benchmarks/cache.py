"""What the cache of scores gives, and what it costs where nothing is in it yet.

Usage: python -m benchmarks.cache [--rounds N]

Three servers of tamis-mini: without a cache, with scores in memory, and with scores in a
redis-server of the benchmark's own and nowhere else. Cold: requests that nobody has seen go to all
three in turn. Warm: the same requests of 50 documents of the RAG mix again, with one caller for the
time a request takes and four for requests per second, compared with a server without a cache, which
computes them. The ones that are not asked sleep. Run nothing else meanwhile.
"""

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmarks.results_file import save
from tamis.bench.latency import latency
from tamis.bench.own_server import own_server
from tamis.bench.workloads import rag_mix
from tamis.settings import DEFAULT_MODEL

NOWHERE, MEMORY, REDIS = "no cache", "memory", "redis"
N_DOCUMENTS = 50
COLD_DOCUMENTS, COLD_REQUESTS = 8, 12
WARM_REQUESTS = 200
CALLERS = 4
N_TEXTS = 4
"""Requests of 50 documents that are sent again and again."""


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    # else threads of the model that is not asked take cores from the other, by waiting actively
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    with (
        redis_server() as redis_url,
        own_server([]) as plain,
        own_server(["--cache.memory-bytes", str(2**26)]) as memory,
        own_server(["--cache.redis-url", redis_url]) as redis,
    ):
        urls = {NOWHERE: plain.url, MEMORY: memory.url, REDIS: redis.url}
        cold = measure_cold(urls, rounds)
        warm = measure_warm(urls, rounds)
    result = {"model": DEFAULT_MODEL, "cold": cold, "warm": warm}
    print(json.dumps(result, indent=2))
    save("cache", result)
    return 0


def measure_cold(urls: dict[str, str], rounds: int) -> dict[str, Any]:
    """Seconds of requests that are new, side by side; each server sees each of them once."""
    seconds: dict[str, list[float]] = {name: [] for name in urls}
    for number in range(rounds):
        names = list(urls)[:: 1 if number % 2 == 0 else -1]
        for request in range(COLD_REQUESTS):
            sent = body(COLD_DOCUMENTS, seed=1_000_000 + number * COLD_REQUESTS + request)
            for name in names:
                with connection(urls[name]) as caller:
                    seconds[name].append(ask(caller, sent, n_cached=0))
    added = {
        name: statistics.median(
            mine / plain - 1 for mine, plain in zip(seconds[name], seconds[NOWHERE], strict=True)
        )
        for name in (MEMORY, REDIS)
    }
    total = {name: sum(found) / sum(seconds[NOWHERE]) - 1 for name, found in seconds.items()}
    return {
        "documents": COLD_DOCUMENTS,
        "requests": len(seconds[NOWHERE]),
        "p50_seconds": {name: latency(found).p50_seconds for name, found in seconds.items()},
        "median_added_percent": {name: 100 * share for name, share in added.items()},
        "total_added_percent": {name: 100 * total[name] for name in (MEMORY, REDIS)},
    }


def measure_warm(urls: dict[str, str], rounds: int) -> dict[str, Any]:
    """Time and throughput of requests whose pairs are all cached, compared with computing them."""
    bodies = [body(N_DOCUMENTS, seed=seed) for seed in range(N_TEXTS)]
    seconds: dict[str, list[float]] = {name: [] for name in urls}
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for name in (MEMORY, REDIS):
        send(urls[name], bodies, N_TEXTS)  # from now on they are kept
    for number in range(rounds):
        for name in list(urls)[:: 1 if number % 2 == 0 else -1]:
            n_requests = N_TEXTS if name == NOWHERE else WARM_REQUESTS
            n_cached = 0 if name == NOWHERE else N_DOCUMENTS
            with connection(urls[name]) as caller:
                for request in range(1 if name == NOWHERE else n_requests):
                    sent = bodies[request % N_TEXTS]
                    seconds[name].append(ask(caller, sent, n_cached=n_cached))
            rates[name].append(send(urls[name], bodies, n_requests))
    per_second = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "documents": N_DOCUMENTS,
        "callers": CALLERS,
        "p50_seconds": {name: latency(found).p50_seconds for name, found in seconds.items()},
        "p99_seconds": {name: latency(found).p99_seconds for name, found in seconds.items()},
        "requests_per_second": per_second,
        "times_the_throughput": {
            name: per_second[name] / per_second[NOWHERE] for name in (MEMORY, REDIS)
        },
    }


def send(url: str, bodies: Sequence[bytes], n_requests: int) -> float:
    """Requests a second of some callers in a closed loop."""

    def call(number: int) -> None:
        with connection(url) as caller:
            for request in range(number, n_requests, CALLERS):
                ask(caller, bodies[request % len(bodies)])

    started = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(call, range(CALLERS)))
    return n_requests / (time.perf_counter() - started)


def ask(caller: http.client.HTTPConnection, sent: bytes, *, n_cached: int | None = None) -> float:
    """Seconds of one request, which must find a number of cached pairs."""
    started = time.perf_counter()
    caller.request("POST", "/rerank", sent, {"content-type": "application/json"})
    with caller.getresponse() as response:
        received = response.read()
    seconds = time.perf_counter() - started
    answer = json.loads(received)
    assert response.status == 200, answer
    assert n_cached is None or answer["usage"]["cached_pairs"] == n_cached, answer["usage"]
    return seconds


def body(n_documents: int, *, seed: int) -> bytes:
    """A request's body; each seed has texts of its own."""
    work = rag_mix(n_documents, seed=seed)
    return json.dumps({"query": work.query, "documents": work.documents}).encode()


@contextmanager
def connection(url: str) -> Generator[http.client.HTTPConnection]:
    """A connection that is kept open between requests."""
    caller = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    try:
        yield caller
    finally:
        caller.close()


@contextmanager
def redis_server() -> Generator[str]:
    """A redis-server on a free loopback port, which writes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(port)
                yield f"redis://127.0.0.1:{port}"
            finally:
                process.terminate()


def wait_for(port: int) -> None:
    """Until something listens."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("redis-server does not listen")


if __name__ == "__main__":
    raise SystemExit(main())
