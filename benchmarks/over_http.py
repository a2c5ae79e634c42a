"""tamis and infinity-emb over HTTP: requests of 8 short documents, interleaved in one run.

Usage: python -m benchmarks.over_http --environments FOLDER [--work FOLDER] [--rounds N]

FOLDER holds infinity's virtual environment (`benchmarks/make_environments.sh`). Both serve an
XLM-RoBERTa-large of random weights; every round starts each server in turn, warms it up, and lets
1, 4 and 16 callers in a closed loop send a fixed number of requests. Run nothing else meanwhile.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.results_file import save
from tamis.bench.random_checkpoint import write_random_checkpoint
from tamis.bench.workloads import short

N_DOCUMENTS = 8
REQUESTS = {1: 6, 4: 8, 16: 16}
"""How many requests are sent, by the number of callers at a time."""
PEER = "infinity-emb float32"
START_SECONDS = 180.0
Servers = dict[str, list[str]]


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder: Path = options.work / "random-large"
    if not (folder / "tokenizer_config.json").exists():
        write_random_checkpoint(folder)
    runs: dict[str, list[dict[str, Any]]] = {}
    for number in range(options.rounds):
        for name, command in servers(folder, options.environments, options.work).items():
            run = measure(command)
            runs.setdefault(name, []).append(run)
            print(f"round {number + 1}: {name} {json.dumps(run)}", flush=True)
    save("over_http", summary(runs, infinity_versions(options.environments)))
    return 0


def servers(folder: Path, environments: Path, work: Path) -> Servers:
    """The commands; PORT stands for the port."""
    infinity = str(environments / "infinity" / "bin" / "infinity_emb")
    tamis = [sys.executable, "-m", "tamis", "serve", "--server.port", "PORT"]
    tamis += ["--server.drain-delay-seconds", "0", "--cache.memory-bytes", "0"]
    model = ["--model.name", str(folder), "--model.cache-dir", str(work)]
    peer = [infinity, "v2", "--model-id", str(folder), "--served-model-name", "m", "--port", "PORT"]
    peer += ["--host", "127.0.0.1", "--engine", "torch", "--device", "cpu"]
    return {
        PEER: [*peer, "--no-bettertransformer", "--no-model-warmup"],
        "tamis float32": [*tamis, *model, "--model.dtype", "float32"],
        "tamis int8": [*tamis, *model, "--model.dtype", "int8"],
    }


def measure(command: list[str]) -> dict[str, Any]:
    """Seconds of each request, and pairs a second, by the number of callers."""
    run: dict[str, Any] = {}
    with serving(command) as url, httpx2.Client(timeout=600) as client:
        ask(client, url, texts(1000))
        for callers, n_requests in REQUESTS.items():
            bodies = [texts(seed) for seed in range(n_requests)]
            started = time.perf_counter()
            with ThreadPoolExecutor(callers) as pool:
                seconds = list(pool.map(lambda body: ask(client, url, body), bodies))
            elapsed = time.perf_counter() - started
            run[str(callers)] = {
                "pairs_per_second": n_requests * N_DOCUMENTS / elapsed,
                "seconds": seconds,
            }
    return run


def texts(seed: int) -> dict[str, Any]:
    """The body of a request; each seed has texts of its own."""
    work = short(N_DOCUMENTS, seed=seed)
    return {"model": "m", "query": work.query, "documents": list(work.documents)}


def ask(client: httpx2.Client, url: str, body: dict[str, Any]) -> float:
    """Seconds of one request."""
    started = time.perf_counter()
    answer = client.post(f"{url}/rerank", json=body).raise_for_status().json()
    seconds = time.perf_counter() - started
    assert len(answer["results"]) == N_DOCUMENTS
    return seconds


@contextmanager
def serving(command: list[str]) -> Generator[str]:
    """A server's address, once it answers; it is gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    words = [str(port) if word == "PORT" else word for word in command]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until a small request is answered with 200."""
    deadline = time.monotonic() + START_SECONDS
    body = {"model": "m", "query": "a", "documents": ["b"]}
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.post(f"{url}/rerank", json=body, timeout=60).is_success:
                return
        except httpx2.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"{process.args!r} does not answer")


def summary(runs: dict[str, list[dict[str, Any]]], versions: dict[str, str]) -> dict[str, Any]:
    """By callers and server: medians over the rounds, and ratios to infinity's."""
    result: dict[str, Any] = {"infinity_versions": versions, "documents_per_request": N_DOCUMENTS}
    for callers in map(str, REQUESTS):
        rows = {name: row([run[callers] for run in found]) for name, found in runs.items()}
        for measured in rows.values():
            rate, p50 = measured["pairs_per_second"], measured["p50_seconds"]
            measured["times_the_peers_throughput"] = rate / rows[PEER]["pairs_per_second"]
            measured["share_of_the_peers_p50"] = p50 / rows[PEER]["p50_seconds"]
        result[f"concurrency {callers}"] = rows
        print(json.dumps({callers: rows}, indent=2), flush=True)
    return result


def row(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One server with one number of callers."""
    seconds = sorted(second for run in runs for second in run["seconds"])
    return {
        "pairs_per_second": statistics.median(run["pairs_per_second"] for run in runs),
        "p50_seconds": statistics.median(seconds),
        "p95_seconds": seconds[int(0.95 * (len(seconds) - 1))],
        "n_requests": len(seconds),
    }


def infinity_versions(environments: Path) -> dict[str, str]:
    """What infinity runs on, as its own Python tells."""
    packages = ["infinity-emb", "torch", "transformers"]
    code = "import json, sys; from importlib.metadata import version as v; "
    code += "print(json.dumps({n: v(n) for n in sys.argv[1:]}))"
    python = environments / "infinity" / "bin" / "python"
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, check=True)
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


if __name__ == "__main__":
    sys.exit(main())
