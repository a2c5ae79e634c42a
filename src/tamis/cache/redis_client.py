"""redis-py as the cache uses it: few commands, short bounds, no retries, one word for each failure.

The commands are MGET or GET, SET, and for people SCAN, UNLINK and INFO; none runs a script. What a
client does is never cancelled from outside: a command that is cut off leaves its reply on a
connection that the next caller would read (CVE-2023-28859). Each one ends by itself, within
redis-py's own timeouts, and these close the connection.
"""

import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

from tamis.cache.redis_url import RedisUrl
from tamis.errors import SettingsError

try:
    from redis import exceptions
    from redis.asyncio import (
        Connection,
        ConnectionPool,
        Redis,
        RedisCluster,
        SSLConnection,
        UnixDomainSocketConnection,
    )
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
    from redis.backoff import NoBackoff

    from tamis.cache.redis_replies import BoundedParser
except ImportError as error:
    raise SettingsError("cache.redis_url needs redis-py: pip install tamis[redis]") from error

FailureReason = Literal[
    "unreachable",  # refused, no such host or socket, TLS fails, no primary to be found
    "lost",  # the connection ended under the command
    "timeout",
    "denied",  # user or password is wrong, or may not do this
    "loading",
    "out_of_memory",
    "read_only",
    "cluster_down",
    "protocol",  # what came back is no answer to what was asked
    "busy",  # all connections are taken
    "open",  # not asked, as it has just failed
    "other",
]

_REASONS: tuple[tuple[tuple[type[BaseException], ...], FailureReason], ...] = (
    ((exceptions.TimeoutError, TimeoutError), "timeout"),
    (
        (
            exceptions.AuthenticationError,
            exceptions.AuthorizationError,
            exceptions.AuthenticationWrongNumberOfArgsError,
            exceptions.NoPermissionError,
        ),
        "denied",
    ),
    ((exceptions.BusyLoadingError,), "loading"),
    ((exceptions.OutOfMemoryError,), "out_of_memory"),
    ((exceptions.ReadOnlyError,), "read_only"),
    (
        (
            exceptions.ClusterError,
            exceptions.RedisClusterException,
            exceptions.AskError,
            exceptions.TryAgainError,
            exceptions.MasterDownError,
        ),
        "cluster_down",
    ),
    ((exceptions.InvalidResponse,), "protocol"),
    ((exceptions.MaxConnectionsError,), "busy"),
    ((MasterNotFoundError, ConnectionRefusedError, FileNotFoundError, ssl.SSLError), "unreachable"),
    ((ConnectionError,), "lost"),
    ((OSError,), "unreachable"),
)
"""The first that fits, of the error or of what led to it."""

FAILURES = (exceptions.RedisError, exceptions.RedisClusterException, OSError)

_OF_ANOTHER_MAP = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ClusterError)
"""After which a cluster may have given keys to other servers."""

SCAN_COUNT = 1000
MGET_KEYS = 10_000
"""In one command: its reply has as many values, and there are bounds to a reply."""
CONNECT_PATIENCE = 5
"""How many times a command's timeout a connection may take: the caller that waits for it has left
by then, and the next caller finds it there."""


class RedisClient(Protocol):
    """What the store asks of Redis, of whatever kind."""

    async def fetch(self, keys: Sequence[bytes]) -> list[Any]:
        """A value, None or what went wrong for each key; or raises for all."""
        ...

    async def keep(self, items: Sequence[tuple[bytes, bytes, int]]) -> list[Any]:
        """Set keys to values for some milliseconds; what became of each, or raises for all."""
        ...

    def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        """Keys that fit a pattern; some may come twice."""
        ...

    async def unlink(self, keys: Sequence[bytes]) -> int:
        """Forget keys; returns how many there were."""
        ...

    async def used_bytes(self) -> int:
        """Memory that the servers use, for whatever."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class ServerClient:
    """One server: named, behind a socket, or the primary that Sentinels name."""

    def __init__(self, redis: Redis, sentinel: Sentinel | None = None) -> None:
        self._redis = redis
        self._sentinel = sentinel

    async def fetch(self, keys: Sequence[bytes]) -> list[Any]:
        """Read with one MGET; a key of another type counts as missing."""
        values: list[Any] = []
        for first in range(0, len(keys), MGET_KEYS):
            values += await self._redis.mget(keys[first : first + MGET_KEYS])
        return values

    async def keep(self, items: Sequence[tuple[bytes, bytes, int]]) -> list[Any]:
        pipeline = _with_sets(self._redis.pipeline(transaction=False), items)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        return self._redis.scan_iter(match=pattern, count=SCAN_COUNT)

    async def unlink(self, keys: Sequence[bytes]) -> int:
        return int(await self._redis.unlink(*keys))

    async def used_bytes(self) -> int:
        return int((await self._redis.info("memory"))["used_memory"])

    async def close(self) -> None:
        await self._redis.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


class ClusterClient:
    """Servers that share the keys out among themselves."""

    def __init__(self, cluster: RedisCluster) -> None:
        self._cluster = cluster

    async def fetch(self, keys: Sequence[bytes]) -> list[Any]:
        """Read with one pipeline per server, concurrently.

        Hardly two of a request's keys share a slot, and MGET is for keys of one slot.
        """
        pipeline: Any = self._cluster.pipeline()
        for key in keys:
            pipeline.execute_command("GET", key)
        return await self._answers(pipeline)

    async def keep(self, items: Sequence[tuple[bytes, bytes, int]]) -> list[Any]:
        return await self._answers(_with_sets(self._cluster.pipeline(), items))

    def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        return self._cluster.scan_iter(match=pattern, count=SCAN_COUNT)

    async def unlink(self, keys: Sequence[bytes]) -> int:
        return int(await self._cluster.unlink(*keys))

    async def used_bytes(self) -> int:
        told = await self._cluster.info("memory", target_nodes=RedisCluster.PRIMARIES)
        return sum(int(one["used_memory"]) for one in told.values())

    async def close(self) -> None:
        await self._cluster.aclose()

    async def _answers(self, pipeline: Any) -> list[Any]:
        try:
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except _OF_ANOTHER_MAP:
            await self._forget_map()
            raise
        if any(isinstance(one, _OF_ANOTHER_MAP) for one in answers):
            await self._forget_map()
        return answers

    async def _forget_map(self) -> None:
        """Ask again which server has which keys; by itself redis-py does so for retries only."""
        with suppress(exceptions.RedisError, OSError):
            await self._cluster.aclose()


def open_client(url: RedisUrl, *, timeout_seconds: float, n_connections: int) -> RedisClient:
    """A client that connects when it is first asked.

    Args:
        url: Where to.
        timeout_seconds: What each wait for an answer may take.
        n_connections: At most, to each server.
    """
    options: dict[str, Any] = {
        "username": url.username,
        "password": url.password,
        "max_connections": n_connections,
        **_manners(url, timeout_seconds),
    }
    if url.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in url.hosts]
        cluster = RedisCluster(startup_nodes=nodes, ssl=url.tls, **options)
        for node in cluster.startup_nodes:  # a cluster itself is given no parser
            node.connection_kwargs["parser_class"] = BoundedParser
        cluster.connection_kwargs["parser_class"] = BoundedParser
        return ClusterClient(cluster)
    options["db"] = url.database
    if url.kind == "sentinel":
        login = {**url.sentinel_login, **_manners(url, timeout_seconds), "ssl": url.tls}
        watchers: Any = Sentinel  # it has no types
        sentinel = watchers(url.hosts, sentinel_kwargs=login)
        primary = sentinel.master_for(url.service, ssl=url.tls, **options)
        for client in (primary, *sentinel.sentinels):
            client.connection_pool.connection_kwargs["parser_class"] = BoundedParser
        return ServerClient(primary, sentinel)
    if url.kind == "socket":
        kind: type[Any] = UnixDomainSocketConnection
        options["path"] = url.path
    else:
        kind = SSLConnection if url.tls else Connection
        ((options["host"], options["port"]),) = url.hosts
    pool = ConnectionPool(kind, parser_class=BoundedParser, **options)
    return ServerClient(Redis.from_pool(pool))


def _manners(url: RedisUrl, timeout_seconds: float) -> dict[str, Any]:
    """How each connection behaves; RESP2 needs no handshake, and its name is nobody's business."""
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": CONNECT_PATIENCE * timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
        **url.tls_options,
    }


def reason_of(error: BaseException) -> FailureReason:
    """What an error comes to, in a word; the error itself may hold a key or an address."""
    if "unauthenticated" in str(error):  # who has not logged in may not even ask at length
        return "denied"
    for link in _chain(error):
        for classes, reason in _REASONS:
            if isinstance(link, classes):
                return reason
    # the library's own, with no other behind it: the server has closed the connection
    return "lost" if isinstance(error, exceptions.ConnectionError) else "other"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _with_sets(pipeline: Any, items: Sequence[tuple[bytes, bytes, int]]) -> Any:
    """The pipeline with a SET for each item."""
    for key, value, milliseconds in items:
        pipeline.execute_command("SET", key, value, "PX", milliseconds)
    return pipeline
