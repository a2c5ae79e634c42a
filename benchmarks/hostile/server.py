"""The server that is attacked: its process, its log, its keys and the Redis that it asks."""

import asyncio
import hashlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile.connection import KeptConnection
from benchmarks.hostile.pace import ticks
from benchmarks.soak import resident_bytes, workers_of
from tamis.relevance.histogram import LOGIT_EDGES

HONEST_KEYS = ("tamis_first_honest_key", "tamis_second_honest_key")
ATTACKERS_KEY = "tamis_key_of_the_attacker"
MAX_DESCRIPTORS = 512
"""Few, so that an attack with descriptors needs few connections. Nothing else comes near it."""
HUGE = (2**63 - 1, 10**400)
"""Numbers of requests: one that overflows in sums, one that no float holds."""
READY_SECONDS, END_SECONDS, READABLE_TAIL = 120.0, 40.0, 4096
SERVER_OPTIONS = (
    *("--server.host=127.0.0.1", "--server.port=0", "--server.drain-delay-seconds=0"),
    *("--model.threads=1", "--cache.memory-bytes=0", "--log.level=info", "--log.format=json"),
)
"""One thread computes, so that on two cores one is left for the event loop, the tokenizer and the
callers. Nothing is cached in memory: each request costs what it costs."""
LISTENING = re.compile(rb"listening on http://127\.0\.0\.1:(\d+)")


class LogPipe:
    """The server's stderr: a pipe that is read, counted and discarded, or left full."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self.n_bytes = 0
        self.tail = b""

    def read(self) -> None:
        """Read from now on."""
        asyncio.get_running_loop().add_reader(self._reading, self._take)

    def stop_reading(self) -> None:
        """Leave what comes in the pipe."""
        asyncio.get_running_loop().remove_reader(self._reading)

    def close(self) -> None:
        """Close the reading end."""
        self.stop_reading()
        os.close(self._reading)

    def _take(self) -> None:
        data = os.read(self._reading, 65_536)
        self.n_bytes += len(data)
        self.tail = (self.tail + data)[-READABLE_TAIL:]
        if not data:
            self.stop_reading()


@dataclass
class AttackedServer:
    """A `tamis serve` of our own."""

    process: asyncio.subprocess.Process
    log: LogPipe
    port: int = 0

    def memory_bytes(self) -> int:
        """Resident memory of its processes; 0 once it has ended."""
        pid = self.process.pid
        with suppress(OSError, AssertionError):  # a process that ends is gone, or has no memory
            return resident_bytes(pid) + sum(resident_bytes(child) for child in workers_of(pid))
        return 0

    async def is_well(self) -> bool:
        """Whether its process runs and says that it is ready."""
        if self.process.returncode is not None:
            return False
        connection = KeptConnection(self.port)
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(5):
                return (await connection.ask("GET /readyz"))[0] == 200
        return False

    async def rest(self, seconds: float) -> float:
        """Wait until nothing is queued; how long that took, at most the time allowed."""
        started = time.monotonic()
        connection = KeptConnection(self.port, HONEST_KEYS[0])
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(seconds):
                async for _ in ticks(10):
                    status, stats = await connection.ask("GET /v1/stats")
                    if status == 200 and not json.loads(stats)["queue"]["tokens"]:
                        break
        connection.close()
        return time.monotonic() - started

    async def end(self) -> None:
        """Let it drain; kill what does not end."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        self.log.close()


class NotReadyError(Exception):
    """The server ended, or was not ready in time.

    Attributes:
        exit_code: None if it still ran.
    """

    def __init__(self, exit_code: int | None, log: bytes) -> None:
        lines = log.decode(errors="replace").splitlines()
        super().__init__(f"exit code {exit_code}: {lines[-1] if lines else 'nothing in the log'}")
        self.exit_code = exit_code


@asynccontextmanager
async def attacked_server(options: Sequence[str]) -> AsyncIterator[AttackedServer]:
    """Run a server until the block is left.

    Raises:
        NotReadyError: it did not get ready.
    """
    command = (sys.executable, "-P", "-m", "tamis", "serve", *SERVER_OPTIONS, *options)
    limited = ("sh", "-c", 'ulimit -n "$0" && exec "$@"', str(MAX_DESCRIPTORS), *command)
    log = LogPipe()
    log.read()
    process = await asyncio.create_subprocess_exec(
        *limited, stdin=asyncio.subprocess.DEVNULL, stdout=log.writing, stderr=log.writing
    )
    os.close(log.writing)
    server = AttackedServer(process, log)
    try:
        await _wait_until_ready(server)
        yield server
    finally:
        await server.end()


async def _wait_until_ready(server: AttackedServer) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while server.process.returncode is None and time.monotonic() < deadline:
        if listening := LISTENING.search(server.log.tail):
            server.port = int(listening[1])
        if server.port and await server.is_well():
            return
        await asyncio.sleep(0.1)
    raise NotReadyError(server.process.returncode, server.log.tail)


def write_keys(path: Path, n_others: int = 0) -> None:
    """A keys file of the honest callers, the attacker and some others."""
    path.write_text(keys_text(n_others), encoding="utf-8")


def keys_text(n_others: int = 0) -> str:
    """What a keys file says."""
    named = {"first": HONEST_KEYS[0], "second": HONEST_KEYS[1], "attacker": ATTACKERS_KEY}
    named |= {f"other{number}": f"tamis_{number}" for number in range(n_others)}
    lines = (f"{hashlib.sha256(key.encode()).hexdigest()} {name}" for name, key in named.items())
    return "\n".join(lines) + "\n"


def write_absurd_baseline(path: Path) -> None:
    """A baseline in the right form whose numbers overflow when they are added or multiplied."""
    n_bins = len(LOGIT_EDGES) + 1
    large, larger = ({"counts": [count] * n_bins, "n_effective": 1e308} for count in HUGE)
    names = ("retention", "top5_overlap", "kendall_tau", "nothing_relevant", "truncation", "tokens")
    rankings = {
        "model": "tamis-mini",
        "n_requests": HUGE[0],
        "threshold": 0.5,
        "top": large,
        "all": larger,
        "signals": {name: {"n": HUGE[1], "mean": 1e308, "variance": 1e308} for name in names},
    }
    baseline = {
        "format": "tamis-baseline",
        "version": 1,
        "recorded": "2026-01-01",
        "logit_edges": list(LOGIT_EDGES),
        "rankings": rankings,
    }
    path.write_text(json.dumps(baseline), encoding="utf-8")
