"""Row 69: a Redis, or who stands between, that sends replies without an end."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tamis.cache.redis import RedisStore
from tamis.cache.redis_url import parse_redis_url
from tamis.cache.store import KEY_BYTES
from tests.faults.doubles import alone, logits_of
from tests.faults.test_redis import Counts
from tests.integration.serving import serving_fake

REPLIES = {
    "three million elements": (b"*3000000\r\n", b":1\r\n" * 3_000_000),
    "as many that never come": (b"*2000000000\r\n", b""),
    "arrays in an array": (b"*50000\r\n", b"*50000\r\n" * 100_000),
    "deep arrays": (b"*1\r\n", b"*1\r\n" * 1_000_000),
    "a value of half a GiB": (b"*1\r\n$500000000\r\n", b"x" * 2**24),
    "sixteen values of a MiB": (b"*16\r\n", (b"$1000000\r\n" + b"x" * 1_000_000 + b"\r\n") * 16),
    "a line without an end": (b"-", b"x" * 2**24),
    "a number without an end": (b":", b"9" * 2**24),
    "as many as there may be": (b"*100000\r\n", b":1\r\n" * 100_000),
    "replies that nobody asked for": (b"", b"+OK\r\n" * 1_000_000),
}


@contextmanager
def redis_that_says(reply: bytes) -> Iterator[str]:
    """A server that answers whatever it is asked with these bytes; where it is."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer(there: socket.socket) -> None:
            with there, suppress(OSError):
                while there.recv(65_536):
                    there.sendall(reply)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    there = listening.accept()[0]
                    threading.Thread(target=answer, args=(there,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


async def longest_hold(working: "asyncio.Task[object]") -> float:
    """Seconds that the event loop does nothing else while a task is at work."""
    longest, before = 0.0, time.monotonic()
    while not working.done():
        await asyncio.sleep(0)
        longest, before = max(longest, time.monotonic() - before), time.monotonic()
    return longest


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
async def test_row_69_no_reply_holds_the_event_loop(reply: tuple[bytes, bytes]) -> None:
    with redis_that_says(b"".join(reply)) as url:
        counts = Counts()
        store = RedisStore(
            parse_redis_url(url), ttl_seconds=60, timeout_seconds=0.5, observer=counts
        )

        async def ask() -> None:
            for _ in range(6):
                assert await store.get_many([b"k" * KEY_BYTES]) == [None]

        # a busy machine holds it, too: it gets three attempts
        holds = [await longest_hold(asyncio.create_task(ask())) for _ in range(3)]
        assert min(holds) < 0.1
        assert set(counts.failures) <= {"protocol", "timeout", "lost", "open"}
        await store.close()


def test_row_69_a_request_is_answered_whatever_the_redis_says() -> None:
    texts = [f"document {n}" for n in range(20)]
    for reply in REPLIES.values():
        with redis_that_says(b"".join(reply)) as url:
            cache = {"memory_bytes": 0, "redis_url": url}
            with serving_fake(cache=cache) as server:
                for _ in range(3):
                    answer = server.rerank("query", texts)
                    assert answer.status_code == 200
                    assert logits_of(answer.json()) == alone("query", texts)
