"""A server of its own at twice its capacity: is any answer wrong, any request lost?

Usage: python -m benchmarks.soak [--seconds 600] [--workers N] [--kill-every 30] [--load 2]

`tamis serve` on tamis-mini first shows its capacity to callers in a closed loop. Then requests of 1
to 200 documents come at random at twice that rate (in tokens), whether or not the ones before are
answered; some callers leave in the middle, some send what is no request, and with --workers a
worker is killed now and then. Every answer is compared, document by document, with the logits of
each pair alone. Ends with 1 where something is not as docs/operations.md says.
"""

import argparse
import asyncio
import json
import math
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import save
from tamis import Reranker
from tamis.bench.own_server import OwnServer, own_server
from tamis.bench.workloads import short

N_QUERIES, N_DOCUMENTS = 4, 160
SIZES = ((1, 0.5), (5, 0.3), (20, 0.16), (60, 0.035), (200, 0.005))
"""Documents of a request, and the share of requests with this number. They are short, so that ten
minutes hold 10,000 requests: memory that grows is seen only then."""
DEADLINES_MS = (1_000, 3_000, 10_000)
MOST_IN_FLIGHT = 400
CANCELLED_SHARE, BAD_SHARE, PARTIAL_SHARE = 0.04, 0.04, 0.1
FLOAT32_TOLERANCE = 1e-4  # docs/numerics.md
SLACK_SECONDS = 1.0
"""Beyond its deadline: the batch that runs, the answer's way, and this script's own turn."""
QUEUE_SECONDS = 4.0
"""The queue holds what takes so long: shorter deadlines meet 504, the longer ones 429."""
MOST_BYTES_PER_10_000_REQUESTS = 5 * 2**20
CALIBRATION_SECONDS, SAMPLE_SECONDS, SETTLING_SHARE = 6.0, 2.0, 0.25
REFUSALS = {429, 503, 504}
BAD_BODIES = (
    (b"{", 400), (b"[]", 400), (b'{"query": "q"}', 400), (b'{"documents": ["a"]}', 400),
    (b'{"query": "q", "documents": ["a\\ud800"]}', 400), (b'{"query": "\xff"}', 400),
    (b'{"query": "q", "documents": [1]}', 422), (b'{"query": 3, "documents": ["a"]}', 422),
    (b'{"query": "q", "documents": ["a"], "top_n": -1}', 422),
)  # fmt: skip
"""What is no request, and how it is answered."""


@dataclass(frozen=True)
class Corpus:
    """Texts, and the logit of each pair of them, computed alone.

    Attributes:
        logits: (n_queries, n_documents).
        n_tokens: Of each document's pair with the first query, about.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    logits: NDArray[np.float32]
    n_tokens: NDArray[np.intp]


@dataclass
class Tally:
    """What became of the requests."""

    sent: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unexpected: Counter[str] = field(default_factory=Counter)
    seconds: list[tuple[float, float]] = field(default_factory=list)
    n_answered: int = 0
    n_pairs: int = 0
    n_partial: int = 0
    worst_difference: float = 0.0
    not_sent: int = 0
    kills: int = 0


def main() -> int:
    """Soak, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--load", type=float, default=2.0, help="times the measured capacity")
    parser.add_argument(
        "--workers", type=int, default=0, help="model workers; 0 leaves it as it is"
    )
    parser.add_argument("--kill-every", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    corpus = make_corpus()
    workers = ["--scheduler.workers", str(options.workers)] if options.workers else []
    with own_server(workers) as server:
        capacity = asyncio.run(measure_capacity(server.url, corpus))
    room = ["--scheduler.max-queued-tokens", str(int(capacity * QUEUE_SECONDS))]
    print(f"capacity: {capacity:,.0f} tokens/s; now {options.load:g} times that", flush=True)
    with own_server([*workers, *room]) as server:
        tally, sizes = asyncio.run(soak(server, corpus, capacity, options))
    result = summary(tally, sizes, capacity, options)
    print(json.dumps(result, indent=2))
    save("soak", result)
    return 0 if all(result["holds"].values()) else 1


def make_corpus() -> Corpus:
    """Seeded texts; each pair is scored in a batch of its own."""
    queries = [short(1, seed=100 + number).query for number in range(N_QUERIES)]
    documents = short(N_DOCUMENTS, seed=7).documents
    with Reranker(max_batch_tokens=1, threads=1) as reranker:
        pairs = [(query, document) for query in queries for document in documents]
        logits = reranker.score(pairs).reshape(len(queries), len(documents))
        encoded = reranker.model.tokenizer.encode(queries[0], documents)
    return Corpus(queries, documents, logits, np.array([pair.n_tokens for pair in encoded]))


async def measure_capacity(url: str, corpus: Corpus) -> float:
    """Tokens a second that callers in a closed loop get done."""
    ends = time.monotonic() + CALIBRATION_SECONDS
    done = 0
    pool = Connections(url)

    async def call(seed: int) -> None:
        nonlocal done
        choose = random.Random(seed)
        while time.monotonic() < ends:
            indices = choose.sample(range(N_DOCUMENTS), 40)
            body = encoded(corpus, seed % N_QUERIES, indices, {})
            status, answer = await pool.ask(body)
            assert status == 200, answer
            done += answer["usage"]["total_tokens"]

    started = time.monotonic()
    await asyncio.gather(*(call(seed) for seed in range(8)))
    return done / (time.monotonic() - started)


async def soak(
    server: OwnServer, corpus: Corpus, capacity: float, options: argparse.Namespace
) -> tuple[Tally, list[tuple[int, int]]]:
    """Send at the chosen rate for the chosen time; what became of it, and the server's sizes."""
    tally, sizes = Tally(), []
    choose = random.Random(options.seed)
    pool = Connections(server.url)
    mean_tokens = float(corpus.n_tokens.mean()) * sum(n * share for n, share in SIZES)
    rate = options.load * capacity / mean_tokens
    ends = time.monotonic() + options.seconds
    background = [asyncio.create_task(watch(server.process_id, tally, sizes))]
    if options.workers:
        background.append(asyncio.create_task(kill_workers(server.process_id, tally, options)))
    running: set[asyncio.Task[None]] = set()
    due = time.monotonic()
    while due < ends:
        due += choose.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if len(running) >= MOST_IN_FLIGHT:
            tally.not_sent += 1
            continue
        task = asyncio.create_task(one_caller(pool, corpus, choose, tally))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    return tally, sizes


async def one_caller(
    pool: "Connections", corpus: Corpus, choose: random.Random, tally: Tally
) -> None:
    """One request of one of the kinds."""
    kind = choose.random()
    if kind < BAD_SHARE:
        body, expected = choose.choice(BAD_BODIES)
        tally.sent["bad input"] += 1
        status, _ = await pool.ask(body)
        if status != expected:
            tally.unexpected[f"bad input: {status} for {expected}"] += 1
        tally.n_answered += 1
        return
    size = choose.choices([n for n, _ in SIZES], [share for _, share in SIZES])[0]
    query = choose.randrange(N_QUERIES)
    indices = choose.choices(range(N_DOCUMENTS), k=size)
    partial = choose.random() < PARTIAL_SHARE
    allowed = choose.choice(DEADLINES_MS)
    body = encoded(corpus, query, indices, {"timeout_ms": allowed, "partial": partial})
    if kind < BAD_SHARE + CANCELLED_SHARE:
        tally.sent["left in the middle"] += 1
        await pool.ask_and_leave(body, choose.random() * 0.3)
        return
    tally.sent["partial" if partial else "whole"] += 1
    started = time.monotonic()
    try:
        patience = allowed / 1000 + 30
        status, answer = await asyncio.wait_for(pool.ask(body), patience)
    except (OSError, EOFError, TimeoutError, ValueError) as error:
        tally.lost.append(f"{type(error).__name__}: {error}")
        return
    seconds = time.monotonic() - started
    tally.n_answered += 1
    if status == 200:
        tally.seconds.append((seconds, allowed / 1000))
        check(answer, corpus.logits[query, indices], tally, partial=partial)
    elif status in REFUSALS and answer.get("code"):
        tally.refused[f"{status} {answer['code']}"] += 1
    else:
        tally.unexpected[f"{status} {answer.get('code')}"] += 1


def check(
    answer: dict[str, Any], expected: NDArray[np.float32], tally: Tally, *, partial: bool
) -> None:
    """Every document once, with the logit it has alone and in the order of the logits."""
    results = answer["results"]
    indices = [result["index"] for result in results]
    scores = [result["score"] for result in results if result["score"] is not None]
    if sorted(indices) != list(range(len(expected))):
        tally.wrong.append(f"{len(indices)} results for {len(expected)} documents")
        return
    if len(scores) < len(results):
        tally.n_partial += 1
        if not partial or not answer.get("degraded"):
            tally.wrong.append("a part of an answer that was not asked for or not marked")
            return
    found = np.array(scores, dtype=np.float32)
    off = np.abs(found - expected[indices[: len(scores)]])
    tally.n_pairs += len(scores)
    worst = float(off.max(initial=0.0))
    tally.worst_difference = max(tally.worst_difference, worst)
    if not worst <= FLOAT32_TOLERANCE:
        tally.wrong.append(f"a logit is off by {worst:g}")
    elif (np.diff(found) > 0).any():
        tally.wrong.append("results are not best first")


async def watch(pid: int, tally: Tally, sizes: list[tuple[int, int]]) -> None:
    """The front process's resident memory, with the number of requests it has answered."""
    while True:
        sizes.append((tally.n_answered + tally.sent["left in the middle"], resident_bytes(pid)))
        await asyncio.sleep(SAMPLE_SECONDS)


async def kill_workers(pid: int, tally: Tally, options: argparse.Namespace) -> None:
    """Kill one of the server's children from time to time."""
    while True:
        await asyncio.sleep(options.kill_every)
        if workers := workers_of(pid):
            with suppress(ProcessLookupError):
                os.kill(random.choice(workers), signal.SIGKILL)
                tally.kills += 1


def resident_bytes(pid: int) -> int:
    """What a process has in memory now."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found
    return int(found[1]) * 1024


def workers_of(pid: int) -> list[int]:
    """A server's children, except multiprocessing's own helper."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = [
        int(child)
        for thread in threads
        for child in (thread / "children").read_text(encoding="utf-8").split()
    ]
    return [child for child in children if b"resource_tracker" not in command_of(child)]


def command_of(pid: int) -> bytes:
    """The command line of a process; nothing of one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def encoded(corpus: Corpus, query: int, indices: Sequence[int], fields: dict[str, object]) -> bytes:
    """The body of a request."""
    documents = [corpus.documents[index] for index in indices]
    body = {"query": corpus.queries[query], "documents": documents, "return_documents": False}
    return json.dumps(body | fields).encode()


class Connections:
    """Connections to one server, kept for the next request; as little HTTP as that takes."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: bytes) -> tuple[int, Any]:
        """Status and answer."""
        async with self._connection() as (reader, writer):
            writer.write(self._head(body) + body)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().splitlines()
            headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
            content = await reader.readexactly(int(headers["content-length"]))
            status = int(lines[0].split()[1])
            if status in (429, 503) and not int(headers.get("retry-after", "0")):
                raise ValueError(f"{status} without a Retry-After")
            if headers.get("connection") != "close":
                self._idle.append((reader, writer))
            return status, json.loads(content)

    async def ask_and_leave(self, body: bytes, seconds: float) -> None:
        """Send a request, wait a little and hang up."""
        async with self._connection(fresh=True) as (_, writer):
            writer.write(self._head(body) + body)
            await asyncio.sleep(seconds)

    def _head(self, body: bytes) -> bytes:
        head = f"POST /rerank HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode()

    @asynccontextmanager
    async def _connection(
        self, *, fresh: bool = False
    ) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """One that is idle and open, or a new one; closed unless it was put back."""
        connection = None
        while self._idle and not fresh and connection is None:
            reader, writer = self._idle.pop()
            if reader.at_eof() or writer.is_closing():
                writer.close()
            else:
                connection = (reader, writer)
        if connection is None:
            connection = await asyncio.open_connection(self._host, self._port, limit=2**24)
        try:
            yield connection
        finally:
            if connection not in self._idle:
                connection[1].close()


def summary(
    tally: Tally, sizes: list[tuple[int, int]], capacity: float, options: argparse.Namespace
) -> dict[str, Any]:
    """What is saved; `holds` has each claim and whether it held."""
    growth = slope(sizes)
    within = [seconds / allowed for seconds, allowed in tally.seconds]
    late = [seconds - allowed for seconds, allowed in tally.seconds if seconds > allowed]
    n_waited = len(tally.seconds)
    holds = {
        "no wrong answer": not tally.wrong and tally.n_pairs > 0,
        "no lost request": not tally.lost,
        "every refusal is 429, 503 or 504 with its reason": not tally.unexpected,
        "the server's memory is flat": growth < MOST_BYTES_PER_10_000_REQUESTS,
        "p99 of the admitted is within the deadline": n_waited > 0
        and float(np.percentile(within, 99)) <= 1.0
        and max(late, default=0.0) <= SLACK_SECONDS,
    }
    if options.workers:
        holds["workers were killed"] = tally.kills >= options.seconds // options.kill_every - 1
    return {
        "seconds": options.seconds,
        "load": options.load,
        "workers": options.workers,
        "workers_killed": tally.kills,
        "capacity_tokens_per_second": round(capacity),
        "sent": dict(tally.sent),
        "not_sent_for_want_of_callers": tally.not_sent,
        "answered": tally.n_answered,
        "answered_200": n_waited,
        "answered_in_part": tally.n_partial,
        "pairs_compared": tally.n_pairs,
        "largest_difference": tally.worst_difference,
        "refused": dict(sorted(tally.refused.items())),
        "wrong": tally.wrong[:20],
        "lost": tally.lost[:20],
        "unexpected": dict(tally.unexpected),
        "seconds_p50_p99_by_deadline": {
            str(ms / 1000): [round(float(np.percentile(found, share)), 3) for share in (50, 99)]
            for ms in DEADLINES_MS
            if (found := [s for s, allowed in tally.seconds if allowed == ms / 1000])
        },
        "latest_beyond_its_deadline_seconds": round(max(late, default=0.0), 3),
        "resident_bytes_first_last": [sizes[0][1], sizes[-1][1]] if sizes else [],
        "resident_bytes_per_10_000_requests": None if math.isnan(growth) else round(growth),
        "holds": {name: bool(held) for name, held in holds.items()},
    }


def slope(sizes: list[tuple[int, int]]) -> float:
    """Bytes in 10,000 requests, of the samples after the server has settled."""
    settled = sizes[int(len(sizes) * SETTLING_SHARE) :]
    if len(settled) < 3:
        return math.nan
    n_requests, n_bytes = zip(*settled, strict=True)
    return float(np.polyfit(n_requests, n_bytes, 1)[0]) * 10_000


if __name__ == "__main__":
    raise SystemExit(main())
