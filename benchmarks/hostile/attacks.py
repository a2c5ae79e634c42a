"""The attacks that come over the network: each runs until it is cancelled, at a bounded rate.

The bounds are far above what a server meets by accident, and low enough that the attacker's own
process takes little of a core: what is measured is how the server shares itself out.
"""

import asyncio
import itertools
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field

from benchmarks.hostile import bodies
from benchmarks.hostile.connection import parsed, request
from benchmarks.hostile.pace import ticks
from benchmarks.hostile.server import MAX_DESCRIPTORS

WAIT_SECONDS = 60.0
"""How long an attacker waits for an answer."""
LOST = (OSError, EOFError, TimeoutError, ValueError)


@dataclass
class Target:
    """Whom to attack, with which key, and what came back.

    Attributes:
        outcomes: Answers by status, and what else became of requests.
        begins: Set when all that is to be sent is prepared.
    """

    port: int
    key: str
    outcomes: Counter[str] = field(default_factory=Counter)
    begins: asyncio.Event = field(default_factory=asyncio.Event)

    def post(self, body: bytes, *headers: bytes, key: str | None = None) -> bytes:
        """A whole request, after which the server is to close."""
        length = b"Content-Length: %d" % len(body)
        return self.head(length, b"Connection: close", *headers, key=key) + body

    def head(self, *headers: bytes, key: str | None = None) -> bytes:
        """First line and headers, with their end."""
        bearer = (self.key if key is None else key).encode()
        lines = [b"POST /rerank HTTP/1.1", b"Host: localhost"]
        lines += [b"Authorization: Bearer " + bearer] if bearer else []
        return b"\r\n".join([*lines, *headers, b"", b""])

    async def send(self, *parts: bytes, pause: float = 0.0, wait: float = WAIT_SECONDS) -> str:
        """Send parts with pauses between them on a new connection; the status, or what happened."""
        outcome = await self._sent(parts, pause, wait)
        self.outcomes[outcome] += 1
        return outcome

    async def _sent(self, parts: tuple[bytes, ...], pause: float, wait: float) -> str:
        writer = None
        try:
            async with asyncio.timeout(wait):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                for number, part in enumerate(parts):
                    if number:
                        await asyncio.sleep(pause)
                    writer.write(part)
                with suppress(ConnectionError):  # the answer may be there all the same
                    await writer.drain()
                status, _, length = parsed(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(length)
                return str(status)
        except LOST as error:
            return type(error).__name__
        finally:
            if writer is not None:
                writer.transport.abort()


async def together(
    target: Target, n: int, work: Callable[[int], Coroutine[object, object, None]]
) -> None:
    """The same work many times at once, each with its number, once it is told that it begins."""
    target.begins.set()
    async with asyncio.TaskGroup() as group:
        for number in range(n):
            group.create_task(work(number))


async def content_types(target: Target) -> None:
    """4 callers, 25 times a second each: Content-Type headers of up to 32 KB."""

    async def work(number: int) -> None:
        async for tick in ticks(25):
            kind = bodies.CONTENT_TYPES[(number + tick) % len(bodies.CONTENT_TYPES)]
            await target.send(target.post(bodies.SMALL, b"Content-Type: " + kind))

    await together(target, 4, work)


async def unfinished_bodies(target: Target) -> None:
    """32 callers: gzip bodies of 8 MiB, unpacked, whose last byte never comes."""
    body = bodies.unfinished()
    length = b"Content-Length: %d" % (len(body) + 5)
    data = target.head(length, b"Content-Encoding: gzip") + body

    async def work(_: int) -> None:
        async for _ in ticks(1):
            await target.send(data, wait=20)

    await together(target, 32, work)


async def queue_flood(target: Target) -> None:
    """16 callers: requests of 200 and of 5 long documents, as many as the queue takes."""
    bodies.long_documents()
    numbers = itertools.count()

    async def work(number: int) -> None:
        async for _ in ticks(0.5):
            size = 200 if number % 2 else 5
            await target.send(target.post(bodies.rerank(next(numbers), size, partial=True)))

    await together(target, 16, work)


async def tokenizer_flood(target: Target) -> None:
    """8 callers, 2 times a second each: 2 MB of text and 100 ms to answer."""
    data = target.post(bodies.long_texts())

    async def work(_: int) -> None:
        async for _ in ticks(2):
            await target.send(data)

    await together(target, 8, work)


async def tiny_strings(target: Target) -> None:
    """16 callers: 8 MiB of tiny strings in an unknown field, while 2 others keep the model busy."""
    bodies.long_documents()
    packed = [bodies.tiny_strings(number) for number in range(16)]

    async def work(number: int) -> None:
        async for tick in ticks(1):
            if number < len(packed):
                await target.send(target.post(packed[number], b"Content-Encoding: gzip"))
            else:
                await target.send(target.post(bodies.rerank(1000 * number + tick, 100)))

    await together(target, len(packed) + 2, work)


async def connections(target: Target) -> None:
    """More connections than the server has descriptors, each with half a header, opened again."""

    async def work(number: int) -> None:
        await asyncio.sleep(number / 200)
        async for _ in ticks(1):
            await target.send(b"GET /livez HTTP/1.1\r\nHost: loc", wait=30)

    await together(target, MAX_DESCRIPTORS + 200, work)


async def slow_readers(target: Target) -> None:
    """60 callers: answers of 8 MiB, of which each takes 1,300 bytes a second."""
    data = target.post(bodies.large_answer(), b"Content-Encoding: gzip")

    async def work(number: int) -> None:
        await asyncio.sleep(number / 20)
        async for _ in ticks(0.5):
            with suppress(OSError):
                await _read_slowly(target, data)
            target.outcomes["closed by the server"] += 1

    await together(target, 60, work)


async def _read_slowly(target: Target, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.settimeout(0)  # without waiting, as the event loop wants it
        await loop.sock_connect(caller, ("127.0.0.1", target.port))
        await loop.sock_sendall(caller, data)
        async for _ in ticks(1):
            if not await loop.sock_recv(caller, 1300):
                return


async def unknown_paths(target: Target) -> None:
    """100 requests a second that each write a line into the log."""
    headers = f"Host: a\r\nConnection: close\r\nAuthorization: Bearer {target.key}\r\n"

    async def work(_: int) -> None:
        async for tick in ticks(25):
            await target.send(request(f"GET /{tick}", headers, b""))

    await together(target, 4, work)


async def leavers(target: Target) -> None:
    """4 times a second: 60 long documents, one byte more, and away."""
    bodies.long_documents()

    async def work(number: int) -> None:
        async for tick in ticks(2):
            body = bodies.rerank(1000 * number + tick, 60)
            data = target.head(b"Content-Length: %d" % len(body)) + body
            await target.send(data, b"G", pause=0.1, wait=0.25)

    await together(target, 2, work)


async def tiny_pairs(target: Target) -> None:
    """60 requests of 1,000 tiny documents wait; 20 callers ask for one, in 50 ms."""

    async def work(number: int) -> None:
        async for tick in ticks(0.5 if number < 60 else 5):
            if number < 60:
                await target.send(target.post(bodies.tiny_pairs(number)))
            else:
                small = b'{"query":"q","documents":["s%d-%d"],"timeout_ms":50}' % (number, tick)
                await target.send(target.post(small))

    await together(target, 80, work)


async def unpacked_ratio(target: Target) -> None:
    """10 times a second: a packed body whose beginning unpacks to far more than its end."""
    body = bodies.front_packs_well()
    data = target.post(body, b"Content-Encoding: gzip")
    cut = len(data) - len(body) + 1500

    async def work(number: int) -> None:
        async for _ in ticks(5):
            await target.send(*((data,) if number else (data[:cut], data[cut:])), pause=0.02)

    await together(target, 2, work)


async def unread_refusals(target: Target) -> None:
    """4 times a second: 5 MB that are refused before they are read, and the refusal is awaited."""
    body = b"x" * 5_000_000
    wrong_type = target.post(body, b"Content-Type: text/html")
    wrong_key = target.post(body, key="tamis_wrong")

    async def work(number: int) -> None:
        async for _ in ticks(2):
            await target.send(wrong_key if number else wrong_type)

    await together(target, 2, work)


async def framings(target: Target) -> None:
    """50 requests a second whose length can be read in two ways."""

    async def work(number: int) -> None:
        async for tick in ticks(10):
            headers, body = bodies.FRAMINGS[(5 * tick + number) % len(bodies.FRAMINGS)]
            await target.send(target.head(headers[:-2], b"Connection: close") + body, wait=3)

    await together(target, 5, work)


async def wrong_keys(target: Target) -> None:
    """50 requests a second with wrong keys."""

    async def work(number: int) -> None:
        async for tick in ticks(10):
            await target.send(target.post(bodies.SMALL, key=f"tamis_{number}_{tick}"))

    await together(target, 5, work)


async def stranger(target: Target) -> None:
    """Without a key: wrong ones, bodies that do not end, long headers, all at once."""
    unfinished = bodies.unfinished()
    length = b"Content-Length: %d" % (len(unfinished) + 5)
    slow = target.head(length, b"Content-Encoding: gzip", key="") + unfinished

    async def work(number: int) -> None:
        async for tick in ticks(5):
            if number < 16:
                await target.send(slow, wait=20)
            else:
                kind = bodies.CONTENT_TYPES[tick % len(bodies.CONTENT_TYPES)]
                await target.send(target.post(bodies.SMALL, b"Content-Type: " + kind, key=""))

    await together(target, 24, work)


async def monitoring(target: Target) -> None:
    """10 times a second each: `/metrics` and `/v1/stats`."""
    headers = f"Host: a\r\nConnection: close\r\nAuthorization: Bearer {target.key}\r\n"

    async def work(number: int) -> None:
        data = request("GET /metrics" if number else "GET /v1/stats", headers, b"")
        async for _ in ticks(10):
            await target.send(data)

    await together(target, 2, work)
