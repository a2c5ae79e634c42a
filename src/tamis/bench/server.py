"""Callers in a closed loop against a server that runs."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import httpx2

from tamis.bench.latency import Latency, latency
from tamis.bench.workloads import Workload
from tamis.errors import SettingsError

TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What callers in a closed loop saw.

    Attributes:
        concurrency: Callers at a time; each sends its next request when it has its answer.
    """

    concurrency: int
    pairs_per_second: float
    latency: Latency


def measure_server(url: str, workloads: Sequence[Workload], *, concurrency: int) -> ServerReport:
    """Send each workload once, after one request that does not count.

    Raises:
        SettingsError: the server does not answer, or not with 200.
    """
    with httpx2.Client(base_url=url, timeout=TIMEOUT_SECONDS) as client:
        _ask(client, workloads[0])
        started = time.perf_counter()
        with ThreadPoolExecutor(concurrency) as callers:
            seconds = list(callers.map(partial(_ask, client), workloads))
        elapsed = time.perf_counter() - started
    n_pairs = sum(len(work.documents) for work in workloads)
    return ServerReport(concurrency, n_pairs / elapsed, latency(seconds))


def _ask(client: httpx2.Client, workload: Workload) -> float:
    """Seconds of one request."""
    body = {"query": workload.query, "documents": list(workload.documents)}
    started = time.perf_counter()
    try:
        client.post("/rerank", json=body).raise_for_status()
    except httpx2.HTTPError as error:
        raise SettingsError(f"{client.base_url} does not rerank: {error}") from error
    return time.perf_counter() - started
