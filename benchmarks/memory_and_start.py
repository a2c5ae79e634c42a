"""Peak memory and seconds from start to ready of `tamis serve`: the large model, and tamis-mini.

Usage: python -m benchmarks.memory_and_start --environment VENV [--work FOLDER] [--starts N]
           [--models NAME ...]

VENV is a virtual environment with tamis and without torch, as `pip install tamis` makes it. The
large model (XLM-RoBERTa-large, random weights, int8) is converted before anything is measured.
Ready is the first 200 of /readyz; memory is the process's high-water mark (VmHWM) after some
requests. Run nothing else meanwhile.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.results_file import save
from tamis.bench.random_checkpoint import write_random_checkpoint
from tamis.bench.workloads import rag_mix, short
from tamis.settings import DEFAULT_MODEL

POLL_SECONDS = 0.005
START_SECONDS = 180.0
LARGE = "xlm-roberta-large, random weights, int8"


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=[LARGE, DEFAULT_MODEL])
    options = parser.parse_args()
    folder: Path = options.work / "random-large"
    if LARGE in options.models and not (folder / "tokenizer_config.json").exists():
        write_random_checkpoint(folder)
    arguments = {
        LARGE: ["--model.name", str(folder), "--model.dtype", "int8"],
        DEFAULT_MODEL: ["--model.name", DEFAULT_MODEL],
    }
    python = options.environment / "bin" / "python"
    measured: dict[str, Any] = {"torch_installed": has_torch(python)}
    for name in options.models:
        command = [str(python), "-m", "tamis", "serve", *arguments[name]]
        command += ["--server.drain-delay-seconds", "0"]
        command += ["--model.cache-dir", str(options.work)]
        start(command)  # converts and tunes, if that was not done yet
        measured[name] = summary([start(command) for _ in range(options.starts)])
        print(json.dumps({name: measured[name]}, indent=2), flush=True)
    print(save("memory_and_start", measured))
    return 0


def has_torch(python: Path) -> bool:
    """Whether torch can be imported there; it changes both numbers."""
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def start(command: list[str]) -> dict[str, float]:
    """One start: seconds until ready, peak memory when ready and after requests, in bytes."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--server.port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, process)
            seconds = time.perf_counter() - started
            ready_bytes = peak_memory(process.pid)
            ask(url)
            return {
                "seconds_to_ready": seconds,
                "peak_bytes_when_ready": ready_bytes,
                "peak_bytes": peak_memory(process.pid),
            }
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until /readyz says 200.

    Raises:
        RuntimeError: The server ended, or took longer than START_SECONDS.
    """
    deadline = time.perf_counter() + START_SECONDS
    with httpx2.Client(timeout=5) as client:
        while time.perf_counter() < deadline and process.poll() is None:
            try:
                if client.get(f"{url}/readyz").status_code == httpx2.codes.OK:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(POLL_SECONDS)
    raise RuntimeError(f"{process.args!r} does not get ready")


def ask(url: str) -> None:
    """A few requests, short and mixed: memory is what serving takes, not what starting takes."""
    for work in (short(8), rag_mix(16), rag_mix(16, seed=4)):
        body = {"query": work.query, "documents": list(work.documents)}
        httpx2.post(f"{url}/rerank", json=body, timeout=300).raise_for_status()


def peak_memory(pid: int) -> int:
    """High-water mark of a process's resident memory in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} tells no VmHWM")


def summary(starts: list[dict[str, float]]) -> dict[str, Any]:
    """Median of the seconds, largest of the memory, and every start."""
    return {
        "seconds_to_ready_median": statistics.median(run["seconds_to_ready"] for run in starts),
        "peak_megabytes": max(run["peak_bytes"] for run in starts) / 1e6,
        "starts": starts,
    }


if __name__ == "__main__":
    sys.exit(main())
