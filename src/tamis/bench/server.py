"""Callers in a closed loop against a server that runs."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec

from tamis.bench.latency import Latency, latency
from tamis.bench.workloads import Workload
from tamis.errors import SettingsError

TIMEOUT_SECONDS = 600.0
JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What callers in a closed loop saw.

    Attributes:
        concurrency: Callers at a time; each sends its next request when it has its answer.
    """

    concurrency: int
    n_pairs: int
    pairs_per_second: float
    requests_per_second: float
    latency: Latency


def measure_server(url: str, workloads: Sequence[Workload], *, concurrency: int) -> ServerReport:
    """Send each workload once, after one request that does not count; through no proxy.

    Raises:
        SettingsError: the server does not answer, or not with 200.
    """
    seconds, elapsed = asyncio.run(_send(url, workloads, concurrency))
    n_pairs = sum(len(work.documents) for work in workloads)
    return ServerReport(
        concurrency=concurrency,
        n_pairs=n_pairs,
        pairs_per_second=n_pairs / elapsed,
        requests_per_second=len(workloads) / elapsed,
        latency=latency(seconds),
    )


def served_model(url: str) -> dict[str, Any]:
    """What `/readyz` says of the model; nothing where the server is not a tamis."""
    try:
        answer = httpx2.get(f"{url.rstrip('/')}/readyz", timeout=10, trust_env=False)
        found = msgspec.json.decode(answer.raise_for_status().content, type=dict[str, Any])
    except (httpx2.HTTPError, httpx2.InvalidURL, msgspec.DecodeError):
        return {}
    return {"name" if key == "model" else key: found[key] for key in found if key != "status"}


async def _send(
    url: str, workloads: Sequence[Workload], concurrency: int
) -> tuple[list[float], float]:
    """Seconds of each request, and from the first one's start to the last one's end."""
    bodies = [
        msgspec.json.encode({"query": work.query, "documents": work.documents})
        for work in workloads
    ]
    async with httpx2.AsyncClient(
        base_url=url,
        headers={"cache-control": "no-store"},  # what is measured is the model
        timeout=TIMEOUT_SECONDS,
        limits=httpx2.Limits(max_connections=None),
        trust_env=False,
    ) as client:
        await _ask(client, bodies[0])
        waiting = iter(bodies)
        started = time.perf_counter()
        found = await asyncio.gather(*(_caller(client, waiting) for _ in range(concurrency)))
        elapsed = time.perf_counter() - started
    return [seconds for of_one in found for seconds in of_one], elapsed


async def _caller(client: httpx2.AsyncClient, waiting: Iterator[bytes]) -> list[float]:
    """Seconds of the requests that one caller has sent, until none is left."""
    return [await _ask(client, body) for body in waiting]


async def _ask(client: httpx2.AsyncClient, body: bytes) -> float:
    """Seconds of one request."""
    started = time.perf_counter()
    try:
        answer = await client.post("/rerank", content=body, headers=JSON)
        answer.raise_for_status()
    except httpx2.HTTPStatusError as error:
        raise SettingsError(
            f"{client.base_url} does not rerank: {error.response.status_code} "
            f"{error.response.text[:300]}"
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise SettingsError(
            f"{client.base_url} does not rerank: {error or type(error).__name__}"
        ) from error
    return time.perf_counter() - started
