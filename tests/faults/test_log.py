"""Rows 64 and 65: a log that nobody reads, and callers who cause lines by the thousand."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.faults.raw import head
from tests.integration.serving import (
    AT_ONCE,
    DEADLINE_SECONDS,
    TAMIS,
    Shell,
    quiet_environment,
    sample,
    until,
)
from tests.redis_servers import free_port

BODY = {"query": "a panda", "documents": ["a bear"]}


@contextmanager
def full_pipe() -> Iterator[int]:
    """A pipe without room for another byte, and without a reader; where one writes to it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


def is_ready(url: str) -> bool:
    with suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/readyz").status_code == 200
    return False


@pytest.mark.parametrize("workers", [0, 1])
def test_row_64_a_log_that_nobody_reads_holds_up_nothing(
    shell: Shell, tiny_model: Path, workers: int
) -> None:
    port = free_port()
    own = ("--model.name", str(tiny_model), "--model.threads", "1", "--server.port", str(port))
    with full_pipe() as stderr:
        process = subprocess.Popen(
            [TAMIS, "serve", *own, "--scheduler.workers", str(workers)],
            stderr=stderr,
            env=quiet_environment() | AT_ONCE | shell.environment,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: is_ready(url))
            with httpx2.Client(base_url=url) as client:
                for _ in range(300):
                    assert client.get("/nowhere").status_code == 404
                assert client.post("/rerank", json=BODY).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
        finally:
            process.kill()
            process.wait()


def test_row_64_a_failed_start_ends_though_nobody_reads_why(shell: Shell, tmp_path: Path) -> None:
    for style in ("json", "console"):
        with full_pipe() as stderr:
            done = subprocess.run(
                [TAMIS, "serve", "--model.name", tmp_path, "--log.format", style],
                check=False,
                stderr=stderr,
                env=quiet_environment() | shell.environment,
                timeout=DEADLINE_SECONDS,
            )
        assert done.returncode == 78


def test_row_65_lines_that_a_stranger_causes_are_some_of_each_kind_and_a_count(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    n_each = 300
    keys = tmp_path / "keys.txt"
    made = shell.run("keys", "make", "web")
    keys.write_text(made.out)
    own = ("--model.name", str(tiny_model), "--model.threads", "1", "--server.port", "0")
    with shell.serve(*own, "--server.keys-file", str(keys)) as process:
        url = process.url()
        host, _, port = url.removeprefix("http://").partition(":")
        address = (host, int(port))
        with httpx2.Client(base_url=url, headers={"x-api-key": made.sentence}) as client:
            for number in range(n_each):
                client.get(f"/nowhere/{number}")
                client.get("/v1/limits", headers={"x-api-key": "wrong"})
                client.get("/v1/limits", headers={"host": "evil.example"})
                client.post("/rerank", content=b"{")
                client.get("/v1/limits")
                with socket.create_connection(address, timeout=DEADLINE_SECONDS) as caller:
                    caller.sendall(head("no colon"))
                    caller.recv(1000)
            text = client.get("/metrics").text
        process.terminate()
        assert process.wait() == 0
    assert len(process.lines) < 6 * 60 + 200
    left_out = [event for event in process.events if "more lines were left out" in event["event"]]
    kinds = {event["event"].partition("left out: ")[2] for event in left_out}
    assert kinds >= {
        "request 404 http_error",
        "request 401 unauthorized",
        "request 400 host_not_allowed",
        "request 400 malformed_body",
        "connection refused: %s, request_id %s",
    }
    assert sample(text, "tamis_log_dropped_lines_total", reason="rate") > 5 * 200
