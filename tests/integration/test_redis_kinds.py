"""The store of scores behind Sentinels, in a cluster and over TLS, each a real one."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamis.cache.redis import RedisStore
from tamis.cache.redis_url import parse_redis_url
from tamis.cache.store import KEY_BYTES, CacheObserver
from tests.integration.serving import until
from tests.redis_servers import (
    RedisServer,
    free_port,
    running_cluster,
    running_redis,
    running_sentinel,
)

ITEMS = [(n.to_bytes(KEY_BYTES, "big"), b"value %d" % n) for n in range(200)]
KEYS = [key for key, _ in ITEMS]
VALUES = [value for _, value in ITEMS]


class Failures(CacheObserver):
    """The reasons that the store has named."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def failed(self, store: str, reason: str) -> None:
        self.reasons.append(reason)


class Opened:
    """A store and what it says; it puts the clock forward where it is refused."""

    def __init__(self, url: str) -> None:
        self.failures = Failures()
        self._ahead = 0.0
        self.store = RedisStore(
            parse_redis_url(url),
            ttl_seconds=60,
            timeout_seconds=5,
            observer=self.failures,
            clock=lambda: asyncio.get_running_loop().time() + self._ahead,
        )

    async def put(self) -> None:
        """Write everything."""
        await self.store.put_many(ITEMS)
        while self.store._calls:
            await asyncio.wait(self.store._calls)

    async def recover(self) -> None:
        """Write and read until both go well."""
        for _ in range(200):
            self._ahead += 5
            await self.put()
            if await self.store.get_many(KEYS) == VALUES:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(self.failures.reasons)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Three servers."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


async def test_a_cluster_is_read_and_written_over_all_its_servers(
    cluster: list[RedisServer],
) -> None:
    for node in cluster:
        node.client.flushall()
    opened = Opened(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{cluster[0].port}")
    assert await opened.store.get_many(KEYS) == [None] * len(KEYS)
    await opened.put()
    assert await opened.store.get_many(KEYS) == VALUES
    assert opened.failures.reasons == []
    assert all(node.client.dbsize() > 20 for node in cluster)
    survey = await opened.store.survey()
    assert (survey.n_entries, survey.is_all) == (len(ITEMS), True)
    assert survey.n_used_bytes is not None
    assert await opened.store.clear() == len(ITEMS)
    assert sum(node.client.dbsize() for node in cluster) == 0
    await opened.store.close()


async def test_a_user_of_a_cluster_may_also_ask_where_keys_are(
    cluster: list[RedisServer],
) -> None:
    rights = ("reset", "on", ">secret", "~tamis:*", "-@all", "+mget", "+get", "+set", "+unlink")
    for node in cluster:
        node.client.flushall()
        node.client.execute_command(
            *("ACL", "SETUSER", "tamis", *rights, "+scan", "+cluster|slots", "+command")
        )
    opened = Opened(f"redis+cluster://tamis:secret@127.0.0.1:{cluster[0].port}")
    await opened.recover()
    assert opened.failures.reasons == []
    assert (await opened.store.survey()).n_entries == len(ITEMS)
    assert await opened.store.clear() == len(ITEMS)
    await opened.store.close()


async def test_slots_that_have_moved_are_found(cluster: list[RedisServer]) -> None:
    opened = Opened(f"redis+cluster://127.0.0.1:{cluster[0].port}")
    await opened.recover()
    owner, *others = (node for node in cluster if node.client.dbsize())
    node_id = others[0].client.execute_command("CLUSTER", "MYID").decode()
    key = owner.client.keys()[0]
    slot = owner.client.execute_command("CLUSTER", "KEYSLOT", key)
    owner.client.delete(*owner.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100))
    for node in cluster:
        node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id)
    await opened.recover()
    assert opened.failures.reasons == []
    await opened.store.close()


async def test_a_cluster_without_one_of_its_servers_comes_back_with_it(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as nodes:
        opened = Opened(f"redis+cluster://127.0.0.1:{nodes[0].port}")
        await opened.recover()
        nodes[1].stop()
        for _ in range(5):
            assert None in await opened.store.get_many(KEYS)
        assert set(opened.failures.reasons) <= {"unreachable", "lost", "cluster_down"}
        assert (await opened.store.statistics()).state != "ok"
        nodes[1].start()
        await opened.recover()
        await opened.store.close()


async def test_the_primary_that_a_sentinel_names_is_used_and_so_is_the_next(
    tmp_path: Path,
) -> None:
    with running_redis(tmp_path) as primary:
        follows = ("--replicaof", f"127.0.0.1 {primary.port}")
        with (
            running_redis(tmp_path, *follows) as replica,
            running_sentinel(tmp_path, primary) as sentinel,
        ):
            until(lambda: replica.client.info("replication")["master_link_status"] == "up")
            opened = Opened(f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0")
            await opened.put()
            assert await opened.store.get_many(KEYS) == VALUES
            assert opened.failures.reasons == []
            until(lambda: len(sentinel.client.sentinel_slaves("main")) == 1)
            sentinel.client.execute_command("SENTINEL", "FAILOVER", "main")
            until(lambda: replica.client.info("replication")["role"] == "master")
            primary.stop()
            replica.client.flushall()
            await opened.recover()
            assert replica.client.dbsize() == len(ITEMS)
            await opened.store.close()


async def test_a_service_that_no_sentinel_knows_is_unreachable(tmp_path: Path) -> None:
    with running_redis(tmp_path) as primary, running_sentinel(tmp_path, primary) as sentinel:
        opened = Opened(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")
        assert await opened.store.get_many(KEYS[:1]) == [None]
        assert opened.failures.reasons == ["unreachable"]
        await opened.store.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    openssl = shutil.which("openssl")
    assert openssl is not None, "this test needs openssl"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


async def test_over_tls_the_servers_certificate_is_checked(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    own, key = certificate
    port = free_port()
    files = ("--tls-cert-file", str(own), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    with running_redis(tmp_path, "--tls-port", str(port), *files):
        opened = Opened(f"rediss://127.0.0.1:{port}?ssl_ca_certs={own}")
        await opened.put()
        assert await opened.store.get_many(KEYS) == VALUES
        assert opened.failures.reasons == []
        strange = Opened(f"rediss://127.0.0.1:{port}")
        assert await strange.store.get_many(KEYS) == [None] * len(KEYS)
        assert strange.failures.reasons == ["unreachable"]
        await opened.store.close()
        await strange.store.close()
