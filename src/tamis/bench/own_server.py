"""A `tamis serve` of the benchmark's own: started, waited for, watched, and always ended."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import httpx2

from tamis.bench.own_process import signals_wait
from tamis.errors import SettingsError
from tamis.settings import ModelSettings

READY_SECONDS = 300.0
"""A model that is converted is there long before, from a slow disk, too."""
POLL_SECONDS = 0.01
END_SECONDS = 10.0
TAIL_LINES = 8
LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
OWN_OPTIONS = (
    *("--server.host=127.0.0.1", "--server.port=0", "--server.drain-delay-seconds=0"),
    *("--log.level=info", "--log.format=json"),  # the log says which port it is
)
NO_CACHE = ("--cache.memory-bytes=0",)
"""What is measured is the model; who measures the cache says otherwise."""


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server that is ready.

    Attributes:
        seconds_to_ready: From the start of its process to the first 200 of `/readyz`.
    """

    url: str
    process_id: int
    seconds_to_ready: float


def serve_options(settings: ModelSettings, *, max_batch_tokens: int) -> list[str]:
    """Arguments of `tamis serve` for a model alone; what was not set is left to its default."""
    options = {
        f"model.{key}": value for key, value in settings.model_dump(exclude_unset=True).items()
    }
    options |= {"scheduler.max_batch_tokens": max_batch_tokens, "cascade.keep": 0}
    return [f"--{name}={value}" for name, value in options.items() if value is not None]


@contextmanager
def own_server(
    options: Sequence[str], *, ready_seconds: float = READY_SECONDS
) -> Generator[OwnServer]:
    """Run `tamis serve` on a free loopback port, from ready until the block is left.

    Raises:
        SettingsError: it ended, in the block too, or was not ready in time; with the last
            lines of its log.
    """
    command = [sys.executable, "-P", "-m", "tamis", "serve", *NO_CACHE, *options, *OWN_OPTIONS]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log, _process(command, log) as process:
        try:
            url = _wait_until_ready(process, log, started + ready_seconds)
            yield OwnServer(url, process.pid, time.perf_counter() - started)
        except SettingsError as error:
            raise SettingsError(_explained(error, process, log)) from error


@contextmanager
def _process(command: Sequence[str], log: IO[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """A child in our process group, so that a terminal's signals reach it as well."""
    process = None
    try:
        with signals_wait():
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )
        yield process
    finally:
        if process is not None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it drain; what has not ended then, or when we are interrupted once more, is killed."""
    try:
        process.terminate()
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: IO[bytes], deadline: float) -> str:
    """Its address."""
    with httpx2.Client(timeout=5, trust_env=False) as client:
        while process.poll() is None:
            listening = LISTENING.search(_read(log))
            if listening and _is_ready(client, listening[1]):
                return listening[1]
            if time.perf_counter() > deadline:
                raise SettingsError("the server was not ready in time")
            time.sleep(POLL_SECONDS)
    raise SettingsError("the server was not ready")


def _is_ready(client: httpx2.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").is_success
    except httpx2.TransportError:
        return False


def _explained(error: SettingsError, process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    code = process.poll()
    state = "it still runs" if code is None else f"it ended with code {code}"
    tail = _read(log).splitlines()[-TAIL_LINES:]
    lines = "\n".join(f"  {line}" for line in tail) or "  (nothing)"
    return f"{error}; {state}. The end of its log:\n{lines}"


def _read(log: IO[bytes]) -> str:
    """The whole log; `pread` leaves the place alone at which the child writes on."""
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), size, 0).decode(errors="replace")
