"""A server with all that surrounds it, and one phase after another on it."""

import asyncio
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hostile import attacks, bodies, verdict
from benchmarks.hostile.attacking import attacking
from benchmarks.hostile.connection import KeptConnection
from benchmarks.hostile.fake_redis import FakeRedis
from benchmarks.hostile.honest import Texts, capacity, observe
from benchmarks.hostile.pace import ticks
from benchmarks.hostile.server import (
    ATTACKERS_KEY,
    HONEST_KEYS,
    AttackedServer,
    attacked_server,
    keys_text,
    write_absurd_baseline,
    write_keys,
)

LOAD = 0.4
"""Share of the measured capacity that the honest callers ask for."""
N_BATCHES, REST_SECONDS = 7, 15.0
MANY_KEYS = 50_000


@dataclass
class Stage:
    """What an attack can lay its hands on.

    Attributes:
        server: None until the first phase, and after it has ended under an attack.
    """

    folder: Path
    redis: FakeRedis
    texts: Texts
    stack: AsyncExitStack
    server: AttackedServer | None = None

    @property
    def keys_file(self) -> Path:
        """Who may call."""
        return self.folder / "keys"

    async def ready_server(self) -> AttackedServer:
        """The server, started again if it has ended or is not ready."""
        if self.server is None or not await self.server.is_well():
            await self.stack.aclose()
            self.server = await self.stack.enter_async_context(attacked_server(self.options()))
            await capacity(self.server.port, HONEST_KEYS[0], self.texts, 1.0)
        return self.server

    def options(self) -> Sequence[str]:
        """Of the server that stands through most attacks."""
        write_keys(self.keys_file)
        redis = f"--cache.redis-url=redis://127.0.0.1:{self.redis.port}"
        return (f"--server.keys-file={self.keys_file}", redis)


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        crew: What comes over the network, from a process of its own.
        meanwhile: What is done to the server's surroundings meanwhile.
        table_is_full: It takes all connections that there may be.
        baseline: It has a server of its own, with an absurd baseline.
        what: What happens, where `crew` and `meanwhile` do not say all of it.
    """

    name: str
    crew: Callable[[attacks.Target], Coroutine[Any, Any, None]] | None = None
    meanwhile: Callable[[Stage, AttackedServer], Coroutine[Any, Any, None]] | None = None
    table_is_full: bool = False
    baseline: bool = False
    what: str = ""


async def unread_log(_: Stage, server: AttackedServer) -> None:
    """Nobody reads the server's stderr."""
    server.log.stop_reading()
    try:
        await asyncio.Event().wait()
    finally:
        server.log.read()


async def signals(_: Stage, server: AttackedServer) -> None:
    """SIGHUP and SIGUSR1, once a second each."""
    async for tick in ticks(2):
        if server.process.returncode is None:
            server.process.send_signal(signal.SIGUSR1 if tick % 2 else signal.SIGHUP)


async def keys_in_place(stage: Stage, _server: AttackedServer) -> None:
    """The keys file is emptied and written again, with 50,000 keys more, in two pieces."""
    text = await asyncio.to_thread(keys_text, MANY_KEYS)
    half = len(text) // 2
    async for _ in ticks(0.5):
        with stage.keys_file.open("w", encoding="utf-8") as file:
            for piece in ("", text[:half], text[half:]):
                file.write(piece)
                file.flush()
                await asyncio.sleep(0.25)


async def huge_replies(stage: Stage, _server: AttackedServer) -> None:
    """The Redis answers with millions of elements, a deep nest or a string of 64 MiB."""
    stage.redis.is_hostile = True
    try:
        await asyncio.Event().wait()
    finally:
        stage.redis.is_hostile = False


ATTACKS = (
    Attack("content types", attacks.content_types),
    Attack("unfinished bodies", attacks.unfinished_bodies),
    Attack("queue flood", attacks.queue_flood),
    Attack("tokenizer flood", attacks.tokenizer_flood),
    Attack("tiny strings", attacks.tiny_strings),
    Attack("connections", attacks.connections, table_is_full=True),
    Attack("slow readers", attacks.slow_readers),
    Attack("unread log", attacks.unknown_paths, unread_log),
    Attack("leavers", attacks.leavers),
    Attack("tiny pairs", attacks.tiny_pairs),
    Attack("unpacked ratio", attacks.unpacked_ratio),
    Attack("unread refusals", attacks.unread_refusals),
    Attack("framings", attacks.framings),
    Attack("signals", None, signals),
    Attack("keys in place", attacks.wrong_keys, keys_in_place),
    Attack("huge replies", None, huge_replies),
    Attack("stranger", attacks.stranger),
    Attack(
        "absurd baseline",
        attacks.monitoring,
        baseline=True,
        what="A baseline whose numbers overflow in sums, or that no float holds.",
    ),
)


async def calibrated(stage: Stage, seconds: float) -> dict[str, float]:
    """What the server can do, the load on it, and the duration of one full batch."""
    server = await stage.ready_server()
    most = await capacity(server.port, HONEST_KEYS[0], stage.texts, seconds)
    connection = KeptConnection(server.port, HONEST_KEYS[0])
    seconds: list[float] = []
    for number in range(N_BATCHES):
        started = time.monotonic()
        await connection.ask("POST /rerank", bodies.rerank(number, 2))
        seconds.append(time.monotonic() - started)
    connection.close()
    return {
        "capacity_requests_per_second": round(most, 2),
        "honest_requests_per_second": round(LOAD * most, 2),
        "batch_seconds": round(statistics.median(seconds), 4),
    }


async def phase(
    stage: Stage, attack: Attack | None, *, rate: float, seconds: float
) -> dict[str, Any]:
    """One phase, with an attack or without; its figures."""
    if attack is None or not attack.baseline:
        server = await stage.ready_server()
        return await _measured(stage, server, attack, rate=rate, seconds=seconds)
    path = stage.folder / "baseline.json"
    write_absurd_baseline(path)
    options = (*stage.options(), f"--relevance.baseline={path}", "--relevance.window=100")
    async with attacked_server(options) as server:
        return await _measured(stage, server, attack, rate=rate, seconds=seconds)


async def _measured(
    stage: Stage, server: AttackedServer, attack: Attack | None, *, rate: float, seconds: float
) -> dict[str, Any]:
    crew = attack.crew if attack else None
    async with attacking(crew, server.port, ATTACKERS_KEY) as attacked:
        before, n_hostile = server.log.n_bytes, stage.redis.n_hostile
        async with _beside(attack, stage, server):
            seen = await observe(server, HONEST_KEYS, stage.texts, rate=rate, seconds=seconds)
            log_bytes = server.log.n_bytes - before
    rested = await server.rest(REST_SECONDS)
    if n_hostile := stage.redis.n_hostile - n_hostile:
        attacked.outcomes["huge replies"] = n_hostile
    found = verdict.measured(seen, attacked, log_bytes=log_bytes, seconds=seconds)
    return found | {"seconds_to_rest": round(rested, 2), "alive": await server.is_well()}


@asynccontextmanager
async def _beside(
    attack: Attack | None, stage: Stage, server: AttackedServer
) -> AsyncIterator[None]:
    """What an attack does to the surroundings, until the block is left."""
    if attack is None or attack.meanwhile is None:
        yield
        return
    task = asyncio.create_task(attack.meanwhile(stage, server))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        write_keys(stage.keys_file)
