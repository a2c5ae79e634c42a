"""Twenty callers who do nothing wrong, two who ask `/livez`, and what they see."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.hostile.connection import KeptConnection
from benchmarks.hostile.server import AttackedServer
from tamis.bench.workloads import short

N_CALLERS = 20
N_DOCUMENTS = 5
PATIENCE_SECONDS = 10.0
"""How long a caller waits for an answer after the end of the phase."""
PROBE_SECONDS, SAMPLE_SECONDS = 0.1, 0.1
LOST = (OSError, EOFError, TimeoutError)


@dataclass
class Seen:
    """What the honest callers saw in one phase.

    Attributes:
        seconds: From when each request was due to its answer; until now where there was none.
        outcomes: Requests by status, or by what went wrong.
        livez_seconds: Of each `GET /livez` on a kept connection.
        new_livez_seconds: Of each one on a new connection.
        livez_failures: By status, or by what went wrong, and by kind of connection.
        memory_bytes: Largest resident memory of the server's processes.
        lag_seconds: How late this script's own event loop woke up, at worst.
    """

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    livez_seconds: list[float] = field(default_factory=list)
    new_livez_seconds: list[float] = field(default_factory=list)
    livez_failures: Counter[str] = field(default_factory=Counter)
    memory_bytes: int = 0
    lag_seconds: float = 0.0


class Texts:
    """Requests of a few short documents, hardly two of them alike."""

    def __init__(self) -> None:
        self._queries = [short(1, seed=100 + number).query for number in range(50)]
        self._documents = short(400, seed=7).documents

    def body(self, choose: random.Random) -> bytes:
        """A request."""
        documents = choose.sample(self._documents, N_DOCUMENTS)
        return json.dumps({"query": choose.choice(self._queries), "documents": documents}).encode()


async def capacity(port: int, key: str, texts: Texts, seconds: float) -> float:
    """Requests a second that callers in a closed loop get answered."""
    started = time.monotonic()
    done = 0

    async def call(seed: int) -> None:
        nonlocal done
        async with closing(KeptConnection(port, key)) as connection:
            while time.monotonic() < started + seconds:
                status, answer = await connection.ask(
                    "POST /rerank", texts.body(random.Random(f"{seed} {done}"))
                )
                assert status == 200, answer
                done += 1

    await asyncio.gather(*(call(seed) for seed in range(8)))
    return done / (time.monotonic() - started)


async def observe(
    server: AttackedServer, keys: Sequence[str], texts: Texts, *, rate: float, seconds: float
) -> Seen:
    """Send honest requests at a rate, for some time, and look at the server meanwhile."""
    seen = Seen()
    ends = time.monotonic() + seconds
    callers = [
        _call(
            KeptConnection(server.port, keys[number % len(keys)]),
            texts,
            seen,
            dues(number, rate, ends),
        )
        for number in range(N_CALLERS)
    ]
    tasks = [
        asyncio.create_task(each)
        for each in (
            *callers,
            _probe(server.port, seen, ends, new=False),
            _probe(server.port, seen, ends, new=True),
            _sample(server, seen, ends),
        )
    ]
    _, late = await asyncio.wait(tasks, timeout=seconds + PATIENCE_SECONDS)
    for task in late:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    return seen


def dues(number: int, rate: float, ends: float) -> Iterator[float]:
    """When a caller's requests are due: the callers take turns, each a little early or late."""
    period = N_CALLERS / rate
    due = time.monotonic() + (number + random.random()) / rate
    while due < ends:
        yield due
        due += period * random.uniform(0.9, 1.1)


async def _call(
    connection: KeptConnection, texts: Texts, seen: Seen, due_times: Iterator[float]
) -> None:
    """One caller: when an answer is late, the next request is late too, and its time says so."""
    for due in due_times:
        outcome = "unanswered"  # also when the end of the phase finds the caller waiting
        try:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            outcome = await _outcome(connection, texts.body(random.Random()))
        except asyncio.CancelledError:
            connection.close()
            for unsent in due_times:
                _count(seen, outcome, unsent)
            raise
        finally:
            _count(seen, outcome, due)
    connection.close()


def _count(seen: Seen, outcome: str, due: float) -> None:
    seen.outcomes[outcome] += 1
    seen.seconds.append(time.monotonic() - due)


async def _outcome(connection: KeptConnection, body: bytes) -> str:
    try:
        status, _ = await connection.ask("POST /rerank", body)
    except LOST as error:
        return type(error).__name__
    return str(status)


async def _probe(port: int, seen: Seen, ends: float, *, new: bool) -> None:
    """Ask `/livez` again and again, as a supervisor does, on new connections or on one."""
    times = seen.new_livez_seconds if new else seen.livez_seconds
    kind = "new connection" if new else "kept connection"
    async with closing(KeptConnection(port)) as connection:
        while (started := time.monotonic()) < ends:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    status, _ = await connection.ask("GET /livez")
                failure = "" if status == 200 else str(status)
            except LOST as error:
                failure = type(error).__name__
            times.append(time.monotonic() - started)
            if failure:
                seen.livez_failures[f"{kind}: {failure}"] += 1
            if new:
                connection.close()
            await asyncio.sleep(max(0.0, started + PROBE_SECONDS - time.monotonic()))


async def _sample(server: AttackedServer, seen: Seen, ends: float) -> None:
    while (started := time.monotonic()) < ends:
        seen.memory_bytes = max(seen.memory_bytes, server.memory_bytes())
        due = started + SAMPLE_SECONDS
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        seen.lag_seconds = max(seen.lag_seconds, time.monotonic() - due)


@asynccontextmanager
async def closing(connection: KeptConnection) -> AsyncIterator[KeptConnection]:
    """Close the connection at the end."""
    try:
        yield connection
    finally:
        connection.close()
