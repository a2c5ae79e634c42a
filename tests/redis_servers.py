"""Redis servers for tests: alone, watched by a Sentinel, or in a cluster; all forget at once."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from tests.integration.serving import DEADLINE_SECONDS, until


class RedisServer:
    """A `redis-server` on a free port, and on a socket in its folder.

    Attributes:
        client: What a test asks it with; it waits for an answer as long as tests wait.
    """

    def __init__(self, folder: Path, *options: str, mode: str = "") -> None:
        program = shutil.which("redis-server")
        assert program is not None, "these tests need redis-server: make system"
        self.port = free_port()
        self.socket_path = folder / f"redis-{self.port}.sock"
        self._command = [
            *(program, *([mode] if mode else ())),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--unixsocket", str(self.socket_path), "--save", "", "--loglevel", "warning"),
            *options,
        ]
        self.client: Any = redis.Redis(port=self.port, socket_timeout=DEADLINE_SECONDS, protocol=2)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, again if it was stopped, and wait until it answers."""
        with Path(f"{self.socket_path}.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until(self._answers)

    def stop(self) -> None:
        """End it at once, whatever it does."""
        self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop it where it is; its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._process.args
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as caller:
            caller.sendall(b"PING\r\n")
            return caller.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


@contextmanager
def running_redis(folder: Path, *options: str, mode: str = "") -> Iterator[RedisServer]:
    """A server, for a while."""
    server = RedisServer(folder, *options, mode=mode)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def running_sentinel(folder: Path, primary: RedisServer) -> Iterator[RedisServer]:
    """A Sentinel that calls a server `main`, and decides alone."""
    config = folder / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {primary.port} 1\n")
    sentinel = RedisServer(folder, "--sentinel", mode=str(config))
    with ExitStack() as stack:
        stack.callback(sentinel.stop)
        sentinel.start()
        yield sentinel


@contextmanager
def running_cluster(folder: Path, n_nodes: int = 3) -> Iterator[list[RedisServer]]:
    """Servers that share the slots out among themselves."""
    with ExitStack() as stack:
        nodes: list[RedisServer] = []
        for number in range(n_nodes):
            place = folder / f"node-{number}"
            place.mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            nodes.append(stack.enter_context(running_redis(place, *options)))
        for number, node in enumerate(nodes):
            first, end = (16_384 * n // n_nodes for n in (number, number + 1))
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            other = nodes[0]
            bus = other.client.config_get("cluster-port")["cluster-port"]
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        until(lambda: all(map(_is_whole, nodes)))
        yield nodes


def _is_whole(node: RedisServer) -> bool:
    told: bytes = node.client.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in told
