"""Seconds from the command to the first answer of the embedded model, with an empty home.

Usage: python -m benchmarks.cold_start [--environment VENV] [--starts N]

As in a new container: no environment variables but PATH and HOME, HOME empty, nothing converted.
Of `tamis rank` the time until it has ended, of `tamis serve` until it has answered a request that
is sent again and again from the start on. Each start that is measured has a new home and is
followed by a second start in the same home.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.results_file import save

POLL_SECONDS = 0.01
MOST_SECONDS = 120.0
QUERY, DOCUMENTS = "what is a tamis", ["A tamis is a fine sieve.", "Bread is baked."]


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=Path(sys.prefix))
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args()
    python = str(options.environment / "bin" / "python")
    measured: dict[str, Any] = {"load_average_before": os.getloadavg()[0]}
    for verb, run in (("rank", rank), ("serve", serve)):
        starts = [first_and_second(run, python) for _ in range(options.starts)]
        measured[verb] = {
            "empty_home_seconds": statistics.median(first for first, _ in starts),
            "second_start_seconds": statistics.median(second for _, second in starts),
            "starts": starts,
        }
    print(json.dumps(measured, indent=2))
    print(save("cold_start", measured))
    return 0


def first_and_second(run: Any, python: str) -> tuple[float, float]:
    """Seconds of a start with an empty home, and of one after it."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": "/usr/bin:/bin"}
        return run(python, environment), run(python, environment)


def rank(python: str, environment: dict[str, str]) -> float:
    """Seconds of `tamis rank` over two documents."""
    started = time.perf_counter()
    subprocess.run(
        [python, "-m", "tamis", "rank", QUERY],
        input="\n".join(DOCUMENTS),
        env=environment,
        stdout=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return time.perf_counter() - started


def serve(python: str, environment: dict[str, str]) -> float:
    """Seconds until `tamis serve` has answered a request."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [python, "-m", "tamis", "serve", "--server.port", str(port)]
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--server.drain-delay-seconds", "0"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for_answer(f"http://127.0.0.1:{port}/rerank")
            return time.perf_counter() - started
        finally:
            process.terminate()


def wait_for_answer(url: str) -> None:
    """Send one request until it is answered.

    Raises:
        RuntimeError: It took longer than MOST_SECONDS.
    """
    body = {"query": QUERY, "documents": DOCUMENTS}
    deadline = time.perf_counter() + MOST_SECONDS
    with httpx2.Client(timeout=MOST_SECONDS) as client:
        while time.perf_counter() < deadline:
            try:
                if client.post(url, json=body).status_code == httpx2.codes.OK:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(POLL_SECONDS)
    raise RuntimeError(f"{url} does not answer")


if __name__ == "__main__":
    sys.exit(main())
