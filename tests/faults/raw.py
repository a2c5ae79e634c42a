"""Bytes to a server and back, as no client library would send them."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.integration.serving import DEADLINE_SECONDS, Served

ASKED = json.dumps({"query": "q", "documents": ["a", "b"]}).encode()


@dataclass(frozen=True)
class RawAnswer:
    """One answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


def parsed(data: bytes) -> RawAnswer:
    """The first answer in bytes that were received."""
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return RawAnswer(int(first.split()[1]), headers, rest[: int(headers.get("content-length", 0))])


@contextmanager
def connected(server: Served) -> Iterator[socket.socket]:
    """A connection; whoever waits on it for too long fails."""
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, timeout=DEADLINE_SECONDS) as caller:
        yield caller


def everything(caller: socket.socket) -> bytes:
    """All that comes until the server closes; a reset is a close, too."""
    received = b""
    with suppress(ConnectionResetError):
        while data := caller.recv(65_536):
            received += data
    return received


def next_answer(caller: socket.socket) -> RawAnswer:
    """The next answer, on a connection that goes on."""
    received = b""
    while data := caller.recv(65_536):
        received += data
        answer = parsed(received) if b"\r\n\r\n" in received else None
        if answer and len(answer.body) == int(answer.headers["content-length"]):
            return answer
    raise ConnectionError("the server has closed")


def exchange(server: Served, data: bytes) -> RawAnswer:
    """Send bytes and no end of them; the answer, once the server has closed."""
    with connected(server) as caller:
        with suppress(ConnectionResetError, BrokenPipeError):  # it has heard enough
            caller.sendall(data)
        return parsed(everything(caller))


def head(*lines: str, start: str = "POST /rerank HTTP/1.1", host: str = "localhost") -> bytes:
    """First line and headers, with their end."""
    return "\r\n".join([start, f"Host: {host}", *lines, "", ""]).encode("latin-1")


def whole(body: bytes, *lines: str) -> bytes:
    """A request with a body, after which the server is to close."""
    return head(f"Content-Length: {len(body)}", "Connection: close", *lines) + body
