"""Servers for tests: in a thread on a free port, or as a process of their own."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

import httpx2
import uvicorn

from tamis.assembly.assembly import Assembly
from tamis.assembly.served import ModelLoader
from tamis.engine.backend import LocalBackend
from tamis.engine.facts import ModelFacts
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.pairs import EncodedPair
from tamis.engine.tokenization import PairTokenizer
from tamis.observability.metrics import Metrics
from tamis.server.app import create_app
from tamis.server.lifespan import ModelLife
from tamis.server.protocol import protocol_class
from tamis.settings import Settings
from tamis.testing import FakeBackend, WordTokenizer
from tamis.workers.process import WORKER_COMMAND

TAMIS = Path(sys.executable).parent / "tamis"
DEADLINE_SECONDS = 60.0
AT_ONCE = {"TAMIS_SERVER__DRAIN_DELAY_SECONDS": "0"}
"""SIGTERM need not wait for balancers that are not there."""


def until(condition: Callable[[], bool]) -> None:
    """Poll until a condition holds; fails after a deadline."""
    end = time.monotonic() + DEADLINE_SECONDS
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition never came to hold"
        pause.wait(0.005)


def fake_model(
    before_forward: Callable[[Sequence[EncodedPair]], object] | None = None,
    *,
    tokenizer: object | None = None,
) -> LoadedModel:
    """A model of doubles: words for tokens, fixed logits, and a hook before each batch."""
    return model_on(PlacedBackend(before_forward), tokenizer=tokenizer)


def model_on(backend: FakeBackend, *, tokenizer: object | None = None) -> LoadedModel:
    """A model of doubles on a backend that says where it runs."""
    place = cast("LocalBackend", backend).runtime
    facts = ModelFacts("fake", "fake", place.device, place.dtype, 512, place.max_batch_tokens)
    return LoadedModel(
        facts,
        tokenizer=cast("PairTokenizer", tokenizer or WordTokenizer()),
        backend=cast("LocalBackend", backend),
    )


def named(model: LoadedModel, name: str) -> LoadedModel:
    """The same model under another name."""
    return replace(model, facts=replace(model.facts, name=name))


@dataclass(frozen=True)
class Place:
    """Where a backend says it runs."""

    device: str = "cpu"
    dtype: str = "float32"
    max_batch_tokens: int = 2048


class PlacedBackend(FakeBackend):
    """A `FakeBackend` that says, as `LoadedModel` asks, where it runs."""

    runtime = Place()


@dataclass(frozen=True)
class Served:
    """A server that runs in a thread of this process."""

    client: httpx2.Client
    life: ModelLife
    settings: Settings
    port: int
    failures: list[str]
    server: uvicorn.Server

    @property
    def model(self) -> Any:
        """The model, once it is loaded; of doubles in many tests."""
        return self.life.assembly.default.model

    def stop(self) -> None:
        """Ask it to drain and end, as SIGTERM does."""
        self.server.should_exit = True

    def rerank(self, query: str, documents: Sequence[object], **fields: object) -> httpx2.Response:
        """`POST /rerank`."""
        body = {"query": query, "documents": documents} | fields
        return self.client.post("/rerank", json=body)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample; 0 when it is not there."""
        return sample(self.client.get("/metrics").text, name, **labels)


NO_CACHE: dict[str, Any] = {"cache": {"memory_bytes": 0}}
"""So that a request that is sent again meets the model again."""


@contextmanager
def serving(
    settings: Settings | None = None,
    *,
    load: ModelLoader = load_model,
    ready: bool = True,
    command: Sequence[str] = WORKER_COMMAND,
    sockets: Sequence[socket.socket] = (),
) -> Iterator[Served]:
    """Run the application under uvicorn, on a socket that already listens, and others.

    Args:
        load: Makes the model, where no workers do.
        ready: Whether to wait until it is.
        command: The program of workers.
        sockets: Others to listen on.
    """
    options = settings or Settings.model_validate(NO_CACHE)
    metrics = Metrics()
    failures: list[str] = []
    assembly = Assembly(options, metrics, load=load, command=command)
    life = ModelLife(assembly, metrics, on_failure=lambda: failures.append("load"))
    app = create_app(options, metrics, life)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol_class(options.limits, metrics.observe_refusal),
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=options.server.drain_seconds,
        )
    )
    # asyncio switches Nagle's algorithm off only where the protocol is named
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(512)
        port = listening.getsockname()[1]
        listeners = {"sockets": [listening, *sockets]}
        thread = threading.Thread(target=server.run, kwargs=listeners, daemon=True)
        thread.start()
        limits = httpx2.Limits(max_connections=256)
        base_url = f"http://127.0.0.1:{port}"
        try:
            with httpx2.Client(base_url=base_url, timeout=60, limits=limits) as client:
                if ready:
                    until(lambda: life.state != "loading")
                yield Served(client, life, options, port, failures, server)
        finally:
            server.should_exit = True
            thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()


def serving_fake(
    before_forward: Callable[[Sequence[EncodedPair]], object] | None = None,
    *,
    sockets: Sequence[socket.socket] = (),
    **sections: Any,
) -> Any:
    """`serving` on doubles that keep no score; keywords are sections of the settings."""
    model = fake_model(before_forward)
    return serving(
        Settings.model_validate(NO_CACHE | sections), load=lambda _: model, sockets=sockets
    )


def serving_folder(folder: Path, **sections: Any) -> Any:
    """`serving` on a model's folder, with one CPU thread: the machine may be busy."""
    model = {"name": str(folder), "threads": 1, "cache_dir": folder.parent / "cache"}
    return serving(Settings.model_validate(NO_CACHE | {"model": model} | sections))


def sample(text: str, name: str, **labels: str) -> float:
    """A sample's value from Prometheus's text format; 0 when it is not there."""
    wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    full = f"{name}{{{wanted}}}" if wanted else name
    values = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return sum(float(value) for found, _, value in values if found == full)


class Gate:
    """Stands before each batch: says that one has come, and holds it until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, _: object) -> None:
        """Wait; for `before_forward` and for loaders."""
        self.reached.set()
        assert self.opened.wait(DEADLINE_SECONDS)


class Process:
    """`tamis serve` as a process of its own; its log is read to the end."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=quiet_environment() | AT_ONCE | (environment or {}),
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def command(self, *arguments: str) -> list[str]:
        """What is run."""
        return [str(TAMIS), "serve", *arguments]

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.wait()

    @property
    def log(self) -> str:
        """All that came on stderr."""
        return "\n".join(self.lines)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log's lines, each of them JSON."""
        return [json.loads(line) for line in self.lines]

    def url(self) -> str:
        """Where it listens, once it does and its model is ready."""
        until(lambda: "listening on" in self.log or self._process.poll() is not None)
        found = re.search(r"listening on (http://[\d.]+:\d+)", self.log)
        assert found, self.log
        until(lambda: httpx2.get(f"{found[1]}/readyz").status_code == 200)
        return found[1]

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit code, once it has ended and its log is read."""
        code = self._process.wait(DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        return code


def quiet_environment() -> dict[str, str]:
    """This process's variables; OpenMP's threads sleep while they wait, on a busy machine."""
    return os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it says of its failure: one line, and no traceback."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass(frozen=True)
class Shell:
    """Runs the `tamis` command, with some variables of its own."""

    environment: dict[str, str]

    def run(self, *arguments: str | Path, given: str | bytes = b"", **environment: str) -> Finished:
        """Run it to its end, with pipes for all three streams."""
        done = subprocess.run(
            [TAMIS, *map(str, arguments)],
            check=False,
            input=given.encode() if isinstance(given, str) else given,
            capture_output=True,
            env=quiet_environment() | self.environment | environment,
            timeout=DEADLINE_SECONDS,
        )
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    def run_on_terminal(self, *arguments: str | Path, columns: int = 100) -> Finished:
        """Run it with a pseudo-terminal for standard output; the rest are pipes."""
        controller, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (40, columns))
        process = subprocess.Popen(
            [TAMIS, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.PIPE,
            env=quiet_environment() | self.environment | {"TERM": "xterm"},
        )
        os.close(terminal)
        shown = _read_terminal(controller)
        _, err = process.communicate(timeout=DEADLINE_SECONDS)
        return Finished(process.returncode, shown, err.decode())

    def serve(self, *arguments: str, **environment: str) -> Process:
        """Start `tamis serve`."""
        return Process(*arguments, environment=self.environment | environment)


def _read_terminal(controller: int) -> str:
    """All that a program shows on a terminal, until it ends."""
    shown = b""
    with open(controller, "rb", buffering=0) as terminal:
        try:
            while data := terminal.read(4096):
                shown += data
        except OSError:  # how Linux says that nobody holds the other end any more
            pass
    return shown.decode().replace("\r\n", "\n")
