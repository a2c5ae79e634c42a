"""Row 35: the server's resident memory, in a process of its own, over thousands of requests."""

import json
import re
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.integration.serving import Process, Shell

MOST_BYTES_PER_10_000_REQUESTS = 5 * 2**20
N_CALLERS = 4
N_WARM_UP, N_ROUNDS, N_PER_ROUND = 1000, 10, 400
LEAK_BYTES = 2048
"""A batch; at one request a batch that is 20 MB in 10,000 requests."""


class DoubleServer(Process):
    """`tests.faults.double_server`."""

    def command(self, *arguments: str) -> list[str]:
        """See `Process.command`."""
        return [sys.executable, "-m", "tests.faults.double_server", *arguments]


def resident_bytes(pid: int) -> int:
    """Of a process: what it has in memory now."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found
    return int(found[1]) * 1024


def ask(url: str, n_requests: int) -> None:
    """Requests one after the other on one connection, each with texts of its own."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        answers = connection.makefile("rb")
        for number in range(n_requests):
            body = json.dumps({"query": "a panda", "documents": [f"a bear {number}"]}).encode()
            head = f"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert answers.readline().split()[1] == b"200"
            length = 0
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answers.read(length)


def growth(url: str, pid: int) -> float:
    """Bytes in 10,000 requests: the slope of a line through the sizes after each round."""
    with ThreadPoolExecutor(N_CALLERS) as pool:

        def round_of(n_requests: int) -> None:
            list(pool.map(ask, [url] * N_CALLERS, [n_requests // N_CALLERS] * N_CALLERS))

        round_of(N_WARM_UP)
        sizes = [resident_bytes(pid)]
        for _ in range(N_ROUNDS):
            round_of(N_PER_ROUND)
            sizes.append(resident_bytes(pid))
    slope = np.polyfit(np.arange(len(sizes)) * N_PER_ROUND, sizes, 1)[0]
    return float(slope) * 10_000


QUIET = ("--server.port", "0", "--log.level", "info", "--cache.memory-bytes", "0")


def test_row_35_the_server_does_not_grow(shell: Shell, tiny_model: Path) -> None:
    own = ("--model.name", str(tiny_model), "--model.threads", "1")
    with shell.serve(*own, *QUIET) as process:
        assert growth(process.url(), process.pid) < MOST_BYTES_PER_10_000_REQUESTS


@pytest.mark.parametrize("leak_bytes", [0, LEAK_BYTES])
def test_row_35_the_detector_finds_a_leak(leak_bytes: int) -> None:
    with DoubleServer("--leak-bytes", str(leak_bytes), *QUIET) as process:
        grew = growth(process.url(), process.pid) > MOST_BYTES_PER_10_000_REQUESTS
    assert grew == (leak_bytes > 0)
