"""Row 66: signals that end a process by default."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from tests.faults.test_keys import KEY, NEW, line
from tests.faults.test_memory import DoubleServer
from tests.integration.serving import Process, Shell, until
from tests.processes import children_of

HARMLESS = [
    *(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM),
    *(signal.SIGPROF, signal.SIGIO, signal.SIGPIPE, signal.SIGWINCH),
]
BODY = {"query": "q", "documents": ["a", "b"]}


def rerank(url: str) -> int:
    return httpx2.post(f"{url}/rerank", json=BODY, timeout=60).status_code


def test_row_66_no_such_signal_ends_the_server_or_what_it_computes(shell: Shell) -> None:
    own = ("--server.port", "0", "--batch-seconds", "0.5")
    with DoubleServer(*own, environment=shell.environment) as process, ThreadPoolExecutor() as pool:
        url = process.url()
        running = pool.submit(rerank, url)
        until(lambda: "tamis_queue_tokens 0" not in httpx2.get(f"{url}/metrics").text)
        for number in HARMLESS:
            os.kill(process.pid, number)
        assert running.result() == 200
        assert rerank(url) == 200
        process.terminate()
        assert process.wait() == 0


def test_row_66_sigquit_drains_as_sigterm_does(shell: Shell) -> None:
    own = ("--server.port", "0", "--batch-seconds", "0.5")
    with DoubleServer(*own, environment=shell.environment) as process, ThreadPoolExecutor() as pool:
        url = process.url()
        running = pool.submit(rerank, url)
        until(lambda: "tamis_queue_tokens 0" not in httpx2.get(f"{url}/metrics").text)
        os.kill(process.pid, signal.SIGQUIT)
        assert running.result() == 200
        assert process.wait() == 0


def test_row_66_workers_go_on_too(shell: Shell, tiny_model: Path) -> None:
    own = ("--model.name", str(tiny_model), "--server.port", "0", "--scheduler.workers", "1")
    with shell.serve(*own) as process:
        url = process.url()
        assert rerank(url) == 200
        (worker,) = children_of(process.pid)
        for number in [*HARMLESS, signal.SIGQUIT, signal.SIGTERM]:
            os.kill(worker, number)
        for number in HARMLESS:
            os.kill(process.pid, number)
        assert rerank(url) == 200
        assert children_of(process.pid) == [worker]
        os.kill(process.pid, signal.SIGQUIT)
        assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_row_66_not_even_while_it_starts(shell: Shell, number: signal.Signals) -> None:
    with Process("--server.port", "0", environment=shell.environment) as process:
        until(lambda: "tamis" in Path(f"/proc/{process.pid}/cmdline").read_text())
        until(lambda: is_ignored(process.pid, number))
        os.kill(process.pid, number)
        assert rerank(process.url()) == 200


def is_ignored(pid: int, number: signal.Signals) -> bool:
    """Whether the process has come as far as to ignore it, or to handle it."""
    with suppress(OSError):
        for row in Path(f"/proc/{pid}/status").read_text().splitlines():
            if row.startswith(("SigIgn", "SigCgt")) and int(row.split()[1], 16) >> (number - 1) & 1:
                return True
    return False


def test_row_66_sighup_reads_the_keys(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(line(KEY, "web"))
    own = ("--server.port", "0", "--server.keys-file", str(path))
    with DoubleServer(*own, environment=shell.environment) as process:
        url = process.url()
        path.write_text(line(NEW, "web"))
        os.kill(process.pid, signal.SIGHUP)
        headers = {"x-api-key": NEW}
        until(lambda: httpx2.get(f"{url}/v1/limits", headers=headers).status_code == 200)
        path.write_text("half a li")
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: "the keys stay as they were" in process.log)
        assert httpx2.get(f"{url}/v1/limits", headers=headers).status_code == 200
        process.terminate()
        assert process.wait() == 0
