"""Servers that share a Redis, and the command that looks into it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tamis.server.keys import make_key
from tests.faults.doubles import FaultyBackend, serving_on
from tests.integration.serving import Served, Shell, until
from tests.redis_servers import RedisServer, free_port

TEXTS = [f"text {n}" for n in range(30)]
SHARED = {"memory_bytes": 0, "redis_timeout_ms": 5000, "secret": "between us"}


class Pair:
    """Two servers with the same keys on one Redis."""

    def __init__(self, folder: Path, redis: RedisServer, stack: ExitStack) -> None:
        self.keys = {name: make_key(name, None) for name in ("web", "batch")}
        keys_file = folder / "keys"
        keys_file.write_text("".join(f"{line}\n" for _, line in self.keys.values()))
        self.backends = [FaultyBackend(), FaultyBackend()]
        self.servers: list[Served] = [
            stack.enter_context(
                serving_on(
                    backend,
                    cache=SHARED | {"redis_url": redis.url},
                    server={"keys_file": keys_file},
                )
            )
            for backend in self.backends
        ]

    def cached(self, server: int, name: str, texts: list[str]) -> int:
        """How many pairs of a caller's request cost nothing."""
        answer = self.servers[server].client.post(
            "/rerank",
            json={"query": "query", "documents": texts},
            headers={"Authorization": f"Bearer {self.keys[name][0]}"},
        )
        assert answer.status_code == 200, answer.text
        n_pairs: int = answer.json()["usage"]["cached_pairs"]
        return n_pairs

    def n_scored(self, server: int) -> int:
        """Pairs that a server's model has scored for callers."""
        return sum(len(batch) for batch in self.backends[server].batches)


@pytest.fixture
def pair(tmp_path: Path, redis_server: RedisServer) -> Iterator[Pair]:
    redis_server.client.flushall()
    with ExitStack() as stack:
        yield Pair(tmp_path, redis_server, stack)


def test_two_servers_on_one_redis_share_work(pair: Pair, redis_server: RedisServer) -> None:
    before = pair.n_scored(1)
    assert pair.cached(0, "web", TEXTS) == 0
    until(lambda: redis_server.client.dbsize() == len(TEXTS))
    assert pair.cached(1, "web", TEXTS) == len(TEXTS)
    assert pair.n_scored(1) == before
    assert pair.cached(1, "web", [*TEXTS, "new"]) == len(TEXTS)
    assert pair.n_scored(1) == before + 1


def test_clearing_one_namespace_leaves_the_other(
    pair: Pair, redis_server: RedisServer, shell: Shell
) -> None:
    for name in ("web", "batch"):
        assert pair.cached(0, name, TEXTS) == 0  # no caller sees what another has asked
    until(lambda: redis_server.client.dbsize() == 2 * len(TEXTS))
    variables = {"TAMIS_CACHE__REDIS_URL": redis_server.url, "TAMIS_CACHE__SECRET": "between us"}
    counted = shell.run("cache", "stats", "--namespace", "web", **variables)
    assert counted.out.splitlines()[0] == f"scores\t{len(TEXTS)}"
    assert "MB" in shell.run("cache", "stats", **variables).out.splitlines()[1]
    done = shell.run("cache", "clear", "--namespace", "web", **variables)
    assert (done.code, done.out) == (0, f"{len(TEXTS)} scores deleted\n")
    assert pair.cached(1, "batch", TEXTS) == len(TEXTS)
    assert pair.cached(1, "web", TEXTS) == 0
    until(lambda: redis_server.client.dbsize() == 2 * len(TEXTS))
    assert shell.run("cache", "clear", **variables).out == f"{2 * len(TEXTS)} scores deleted\n"
    assert redis_server.client.dbsize() == 0


@pytest.mark.parametrize("verb", ["stats", "clear"])
def test_without_a_redis_there_is_nothing_to_ask(shell: Shell, verb: str) -> None:
    done = shell.run("cache", verb)
    assert done.code == 78
    assert "cache.redis_url is not set" in done.sentence


@pytest.mark.parametrize("verb", ["stats", "clear"])
def test_a_redis_that_does_not_answer_is_said_with_69(shell: Shell, verb: str) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}"
    done = shell.run("cache", verb, TAMIS_CACHE__REDIS_URL=url)
    assert done.code == 69
    assert "does not answer: unreachable" in done.sentence
    assert "secret" not in done.err


@pytest.mark.parametrize("verb", [["serve"], ["cache", "stats"]], ids=" ".join)
def test_a_wrong_url_is_refused_with_78_and_not_repeated(shell: Shell, verb: list[str]) -> None:
    done = shell.run(*verb, TAMIS_CACHE__REDIS_URL="http://:secret@localhost")
    assert done.code == 78
    assert "cache.redis_url wants one of these forms" in done.sentence
    assert "secret" not in done.err


def test_without_redis_py_the_sentence_says_what_to_install(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError('not installed here')\n")
    variables = {"TAMIS_CACHE__REDIS_URL": "redis://", "PYTHONPATH": str(tmp_path)}
    for verb in (["serve"], ["cache", "stats"]):
        done = shell.run(*verb, **variables)
        assert done.code == 78
        assert "pip install tamis[redis]" in done.sentence
