"""Rows 49 and 50: a process that is stopped for a while, and one that is ended while it starts."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import httpx2
import pytest

from tests.integration.serving import TAMIS, Shell, until

FROZEN_SECONDS = 3.0


def ask(url: str, n_documents: int, timeout_ms: int) -> int:
    """The status of a request whose pairs nobody has asked for before."""
    documents = [f"{time.monotonic_ns()} a bear in the forest " * 8 for _ in range(n_documents)]
    body = {"query": "what is a panda?", "documents": documents, "timeout_ms": timeout_ms}
    return httpx2.post(f"{url}/rerank", json=body, timeout=60).status_code


def test_row_49_a_server_that_was_frozen_refuses_nobody_afterwards(shell: Shell) -> None:
    with shell.serve("--server.port", "0", "--scheduler.max-batch-tokens", "512") as process:
        url = process.url()
        with ThreadPoolExecutor(1) as callers:
            frozen = callers.submit(ask, url, 8, 60_000)
            until(lambda: httpx2.get(f"{url}/v1/stats").json()["queue"]["tokens"] > 0)
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(FROZEN_SECONDS)
            os.kill(process.pid, signal.SIGCONT)
            assert frozen.result() == 200
        assert ask(url, 8, 10_000) == 200
        assert httpx2.get(f"{url}/readyz").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_row_50_a_signal_while_the_model_loads_ends_it_with_0(
    shell: Shell, workers: tuple[str, ...], number: signal.Signals
) -> None:
    with shell.serve("--server.port", "0", *workers) as process:
        until(lambda: "listening on" in process.log)
        os.kill(process.pid, number)
        assert process.wait() == 0, process.log
        assert "terminate called" not in process.log
        assert "Traceback" not in process.log


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.6])
def test_row_50_a_signal_at_any_moment_of_the_start_ends_it_with_0(
    shell: Shell, seconds: float
) -> None:
    with shell.serve("--server.port", "0") as process:
        until(lambda: catches(process.pid, signal.SIGTERM))
        time.sleep(seconds)
        process.terminate()
        assert process.wait() == 0, process.log
        assert "Traceback" not in process.log


def test_row_50_a_second_signal_changes_nothing(shell: Shell) -> None:
    with shell.serve("--server.port", "0") as process:
        until(lambda: "listening on" in process.log)
        process.terminate()
        process.terminate()
        assert process.wait() == 0, process.log


def n_unread(pipe: IO[bytes]) -> int:
    """Bytes that the process at the other end has not read yet."""
    counted = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(counted, sys.byteorder)


def test_ctrl_c_ends_another_verb_with_130_even_if_its_query_is_serve(shell: Shell) -> None:
    with subprocess.Popen(
        [str(TAMIS), "rank", "serve", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=shell.environment,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"a document\n")
        process.stdin.flush()
        until(lambda: n_unread(process.stdin) == 0)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
