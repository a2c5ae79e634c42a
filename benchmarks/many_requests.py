"""Resident memory of a server before and after 20,000 small requests, and how many a second.

Usage: python -m benchmarks.many_requests [--requests 20000]

Eight callers in a closed loop ask for two documents of one word each, again and again the same
hundred requests: the scores come from the cache, and what is measured is everything around the
model. 4,000 requests before let the server settle. Ends with 1 where the memory grew by more than
5 MiB in 10,000 requests, the bound of `benchmarks.soak`.
"""

import argparse
import asyncio
import json
import time
from typing import Any

from benchmarks.hostile.connection import KeptConnection
from benchmarks.results_file import save
from benchmarks.soak import MOST_BYTES_PER_10_000_REQUESTS, resident_bytes
from tamis.bench.own_server import own_server

N_CALLERS = 8
SETTLING_SHARE = 0.2
CACHE = "--cache.memory-bytes=67108864"
"""A server's default."""


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    n_requests = parser.parse_args().requests
    with own_server([CACHE]) as server:
        port = int(server.url.rpartition(":")[2])
        asyncio.run(asked(port, int(n_requests * SETTLING_SHARE)))
        before = resident_bytes(server.process_id)
        rate = asyncio.run(asked(port, n_requests))
        after = resident_bytes(server.process_id)
    grown = (after - before) / n_requests * 10_000
    result: dict[str, Any] = {
        "requests": n_requests,
        "callers": N_CALLERS,
        "requests_per_second": round(rate, 1),
        "resident_bytes_before_after": [before, after],
        "resident_bytes_per_10_000_requests": round(grown),
        "bar_bytes_per_10_000_requests": MOST_BYTES_PER_10_000_REQUESTS,
    }
    print(json.dumps(result, indent=2))
    save("many_requests", result)
    return 0 if grown <= MOST_BYTES_PER_10_000_REQUESTS else 1


async def asked(port: int, n_requests: int) -> float:
    """Send requests; how many were answered a second."""
    numbers = iter(range(n_requests))

    async def call() -> None:
        connection = KeptConnection(port)
        for number in numbers:
            body = {"query": f"q{number % 50}", "documents": [f"a{number % 20}", "b"]}
            status, answer = await connection.ask("POST /rerank", json.dumps(body).encode())
            assert status == 200, answer
        connection.close()

    started = time.monotonic()
    await asyncio.gather(*(call() for _ in range(N_CALLERS)))
    return n_requests / (time.monotonic() - started)


if __name__ == "__main__":
    raise SystemExit(main())
