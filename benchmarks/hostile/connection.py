"""As little HTTP as a load generator needs."""

import asyncio


class KeptConnection:
    """A connection to one server that is kept, and opened again when it is gone."""

    def __init__(self, port: int, key: str = "") -> None:
        self._port = port
        self._headers = f"Host: localhost\r\nAuthorization: Bearer {key}\r\n" if key else HOST
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, start: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            OSError, EOFError: there is no whole answer.
        """
        if self._streams is not None and self._streams[0].at_eof():
            self.close()  # the server may close a connection on which nothing goes on
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        whole = False
        try:
            writer.write(request(start, self._headers, body))
            status, closes, length = parsed(await reader.readuntil(b"\r\n\r\n"))
            content = await reader.readexactly(length)
            whole = not closes
        finally:
            if not whole:
                self.close()
        return status, content

    def close(self) -> None:
        """Close the connection; the next request opens one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


HOST = "Host: localhost\r\n"


def request(start: str, headers: str, body: bytes) -> bytes:
    """The bytes of a request with a body of known length."""
    head = f"{start} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


def parsed(head: bytes) -> tuple[int, bool, int]:
    """Status of an answer, whether the server closes the connection, and bytes of the body."""
    first, *lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    closes = headers.get("connection") == "close"
    return int(first.split()[1]), closes, int(headers.get("content-length", "0"))
