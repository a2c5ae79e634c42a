"""Scores in Redis, for servers that share them; a Redis that fails costs time, and little of it."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from tamis.cache.breaker import Breaker
from tamis.cache.memory_store import TTL_JITTER
from tamis.cache.redis_client import FAILURES, SCAN_COUNT, FailureReason, open_client, reason_of
from tamis.cache.redis_url import RedisUrl
from tamis.cache.store import CacheObserver, StoreStatistics
from tamis.errors import CacheUnreachableError

KEY_PREFIX = b"tamis:1:"
"""Before every key: what else is in the same Redis is left alone. The number is the layout's."""

N_READERS = 16
MOST_WAITING_ITEMS = 20_000
WRITE_ITEMS = 500
"""In one pipeline: what it takes to pack them keeps nobody else waiting."""
CLOSING_SECONDS = 1.0

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RedisSurvey:
    """What is in a Redis.

    Attributes:
        n_entries: Scores in it, or in a namespace.
        is_all: Whether counting came to its end.
        n_used_bytes: Memory of the whole Redis; None where it does not say.
    """

    n_entries: int
    is_all: bool
    n_used_bytes: int | None


class RedisStore:
    """A store that several servers share. Belongs to one event loop.

    It connects when it is first asked. A read is one command, and what is not there within its
    bound counts as missing; writes wait in a bounded queue that one task empties. Reads and writes
    have a breaker each: a full or read-only Redis is still worth reading.

    Every command runs in a task of its own that nobody cancels: a caller who leaves, or whose time
    is over, leaves it to read its reply, or to close its connection, by itself.

    Args:
        url: Where it is.
        ttl_seconds: How long an entry is kept, or up to a tenth less.
        timeout_seconds: What a read may take, with connecting and waiting for its turn.
        observer: Hears of failures and dropped writes.
        clock: Seconds that only go up.
    """

    name = "redis"

    def __init__(
        self,
        url: RedisUrl,
        *,
        ttl_seconds: float,
        timeout_seconds: float,
        observer: CacheObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = open_client(
            url,
            timeout_seconds=timeout_seconds,
            n_connections=N_READERS + 4,  # the writer's, and people's
        )
        self._ttl_seconds = ttl_seconds
        self._timeout_seconds = timeout_seconds
        self._observer = observer or CacheObserver()
        self._clock = clock
        self._readers = asyncio.Semaphore(N_READERS)
        self._reading, self._writing = Breaker(), Breaker()
        self._last_reason: FailureReason = "other"
        self._calls: set[asyncio.Task[Any]] = set()
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._is_closing = False

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        nothing: list[bytes | None] = [None] * len(keys)
        if not keys or self._is_closing:
            return nothing
        ticket = self._reading.admit(self._clock())
        if ticket is None:
            self._observer.failed(self.name, "open")
            return nothing
        call = self._start(self._read([KEY_PREFIX + key for key in keys], ticket))
        await asyncio.wait({call}, timeout=self._timeout_seconds)
        return (call.result() if call.done() else None) or nothing

    async def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        if self._is_closing or len(self._waiting) + len(items) > MOST_WAITING_ITEMS:
            self._observer.dropped_writes(self.name, len(items))
            return
        self._waiting.extend(items)
        if self._writer is None or self._writer.done():
            self._writer = self._start(self._write_waiting())

    async def clear(self, namespace: bytes | None = None) -> int:
        """Delete a namespace's scores.

        Raises:
            CacheUnreachableError: it did not answer; some may be gone.
        """
        return await asyncio.shield(self._start(self._told(self._clear(namespace))))

    async def survey(
        self, namespace: bytes | None = None, *, most: int = 10_000_000
    ) -> RedisSurvey:
        """Ask what is in it.

        Args:
            namespace: Whose entries are counted; all where None.
            most: Where counting ends.

        Raises:
            CacheUnreachableError: it did not answer.
        """
        return await asyncio.shield(self._start(self._told(self._survey(namespace, most))))

    async def statistics(self) -> StoreStatistics:
        """Count what happened so far; Redis is not asked."""
        is_ok = self._reading.state == self._writing.state == "closed"
        return StoreStatistics(self.name, None, None, "ok" if is_ok else self._last_reason)

    async def close(self) -> None:
        """Close after pending writes, if they finish soon."""
        self._is_closing = True
        if self._calls:
            await asyncio.wait(self._calls, timeout=CLOSING_SECONDS)
        with suppress(*FAILURES):
            await self._client.close()
        if self._calls:  # they find their connections closed
            await asyncio.wait(self._calls, timeout=CLOSING_SECONDS)

    def _start(self, call: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Run it to its end, even if the caller leaves."""
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def _read(self, keys: list[bytes], ticket: int) -> list[bytes | None] | None:
        """A value or None for each key; None where the store has failed."""
        ends = self._clock() + self._timeout_seconds
        async with self._readers:
            if self._clock() > ends:
                self._observer.failed(self.name, "busy")
                return None
            answers, reason = await _answers(self._client.fetch(keys), len(keys))
        if reason is None and self._clock() > ends:
            reason = "timeout"
        self._report(self._reading, ticket, reason)
        return [answer if isinstance(answer, bytes) else None for answer in answers]

    async def _write_waiting(self) -> None:
        while self._waiting:
            n_items = min(len(self._waiting), WRITE_ITEMS)
            await self._write([self._waiting.popleft() for _ in range(n_items)])

    async def _write(self, items: list[tuple[bytes, bytes]]) -> None:
        n_kept = 0
        ticket = self._writing.admit(self._clock())
        if ticket is not None:
            entries = [(KEY_PREFIX + key, value, self._milliseconds()) for key, value in items]
            answers, reason = await _answers(self._client.keep(entries), len(items))
            self._report(self._writing, ticket, reason)
            n_kept = sum(not isinstance(answer, Exception) for answer in answers)
        if n_kept < len(items):
            self._observer.dropped_writes(self.name, len(items) - n_kept)

    def _milliseconds(self) -> int:
        """What came together does not go together."""
        share = 1 - TTL_JITTER * random.random()  # noqa: S311 - no secret
        return max(1, int(1000 * self._ttl_seconds * share))

    def _report(self, breaker: Breaker, ticket: int, reason: FailureReason | None) -> None:
        before = breaker.state
        if reason is None:
            breaker.succeed(ticket)
        else:
            self._last_reason = reason
            self._observer.failed(self.name, reason)
            breaker.fail(ticket, self._clock())
        what = "read" if breaker is self._reading else "written"
        if (before, breaker.state) == ("closed", "open"):
            logger.warning("the cache in Redis is not %s for now: %s", what, reason)
        elif (before, breaker.state) == ("half_open", "closed"):
            logger.info("the cache in Redis is %s again", what)

    async def _told(self, call: Awaitable[Result]) -> Result:
        """For people, who want to know."""
        try:
            return await call
        except FAILURES as error:
            raise CacheUnreachableError(
                f"the Redis at cache.redis_url does not answer: {reason_of(error)}"
            ) from error

    async def _clear(self, namespace: bytes | None) -> int:
        n_gone = 0
        async for keys in self._found(namespace):
            n_gone += await self._client.unlink(keys)
        return n_gone

    async def _survey(self, namespace: bytes | None, most: int) -> RedisSurvey:
        n_entries, is_all = 0, True
        async for keys in self._found(namespace):
            n_entries += len(keys)
            if n_entries >= most:
                is_all = False
                break
        try:
            n_used_bytes = await self._client.used_bytes()
        except FAILURES as error:
            if reason_of(error) != "denied":  # INFO is among the commands that few are allowed
                raise
            n_used_bytes = None
        return RedisSurvey(n_entries, is_all, n_used_bytes)

    async def _found(self, namespace: bytes | None) -> AsyncIterator[list[bytes]]:
        """The keys of a namespace, some at a time."""
        keys: list[bytes] = []
        async for key in self._client.scan(_literally(KEY_PREFIX + (namespace or b"")) + b"*"):
            keys.append(key)
            if len(keys) == SCAN_COUNT:
                yield keys
                keys = []
        if keys:
            yield keys


async def _answers(call: Awaitable[Any], n_asked: int) -> tuple[list[Any], FailureReason | None]:
    """What came for each key, nothing where all failed; and why the first of them failed."""
    try:
        answers = await call
    except Exception as error:  # noqa: BLE001 - whatever a cache does, it fails no request
        return [], reason_of(error)
    if not isinstance(answers, list) or len(answers) != n_asked:
        return [], "protocol"
    failed = next((answer for answer in answers if isinstance(answer, Exception)), None)
    return answers, None if failed is None else reason_of(failed)


def _literally(text: bytes) -> bytes:
    """A pattern that fits this and nothing else."""
    special = b"\\*?[]"
    return b"".join(b"\\" + bytes([byte]) if byte in special else bytes([byte]) for byte in text)
