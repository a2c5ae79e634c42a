"""A Redis that knows nothing, until it turns hostile and answers without end."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import BinaryIO

MILLIONS = b"*3000000\r\n" + b"$-1\r\n" * 3_000_000
NESTED = b"*1\r\n" * 2_000_000
LONG = b"*1\r\n$67108864\r\n" + bytes(2**26)


class FakeRedis(socketserver.ThreadingTCPServer):
    """Answers MGET with "not there" and everything else with OK.

    Its threads send without holding the event loop of the callers up.

    Attributes:
        is_hostile: Whether each MGET is answered by one of the huge replies.
        n_hostile: Huge replies that were begun.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.is_hostile = False
        self.n_hostile = 0
        self._replies = cycle((MILLIONS, NESTED, LONG))

    @property
    def port(self) -> int:
        """Where it listens, on loopback."""
        port: int = self.server_address[1]
        return port

    def answer(self, words: list[bytes]) -> bytes:
        """The reply to a command."""
        if words[0].upper() != b"MGET":
            return b"+OK\r\n"
        if not self.is_hostile:
            n_keys = len(words) - 1
            return b"*%d\r\n" % n_keys + b"$-1\r\n" * n_keys
        self.n_hostile += 1
        return next(self._replies)


class _Connection(socketserver.StreamRequestHandler):
    server: FakeRedis

    def handle(self) -> None:
        with suppress(OSError):
            while words := _command(self.rfile):
                self.connection.sendall(self.server.answer(words))


def _command(stream: BinaryIO) -> list[bytes]:
    """The words of a command, each sent with its length; none at the end."""
    head = stream.readline()
    return [stream.read(int(stream.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:] or 0))]


@contextmanager
def fake_redis() -> Iterator[FakeRedis]:
    """One that listens on a free port of loopback."""
    with FakeRedis() as redis:
        thread = threading.Thread(target=redis.serve_forever, daemon=True)
        thread.start()
        try:
            yield redis
        finally:
            redis.shutdown()
            thread.join()
