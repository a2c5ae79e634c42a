"""URLs of Redis servers, and how little is said of one that is wrong."""

import pytest

from tamis.cache.redis_url import RedisUrl, parse_redis_url
from tamis.errors import SettingsError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", RedisUrl("server", (("localhost", 6379),))),
        ("redis://cache:7000/2", RedisUrl("server", (("cache", 7000),), database=2)),
        ("redis://cache?db=3", RedisUrl("server", (("cache", 6379),), database=3)),
        ("redis://[::1]:7000", RedisUrl("server", (("::1", 7000),))),
        ("redis://:p%40ss@cache", RedisUrl("server", (("cache", 6379),), password="p@ss")),
        (
            "rediss://me:secret@cache/0?ssl_ca_certs=/etc/ca.pem",
            RedisUrl(
                "server",
                (("cache", 6379),),
                username="me",
                password="secret",
                tls=True,
                tls_options={"ssl_ca_certs": "/etc/ca.pem"},
            ),
        ),
        (
            "unix:///run/redis.sock?db=1&password=secret",
            RedisUrl("socket", path="/run/redis.sock", database=1, password="secret"),
        ),
        (
            "redis+sentinel://:secret@a:1,b/main/4?sentinel_password=other",
            RedisUrl(
                "sentinel",
                (("a", 1), ("b", 26379)),
                service="main",
                database=4,
                password="secret",
                sentinel_login={"password": "other"},
            ),
        ),
        ("redis+cluster://a:1,b:2", RedisUrl("cluster", (("a", 1), ("b", 2)))),
        ("rediss+cluster://a", RedisUrl("cluster", (("a", 6379),), tls=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_url_says(url: str, expected: RedisUrl) -> None:
    found = parse_redis_url(url)
    assert found == expected
    assert "secret" not in repr(found)
    assert "other" not in repr(found)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("localhost:6379", "wants one of these forms"),
        ("http://:secret@localhost", "wants one of these forms"),
        ("redis://:secret@cache:x", "port that is no number"),
        ("redis://:secret@cache:0", "port that cannot be"),
        ("redis://:secret@:1", "host without a name"),
        ("redis://:sec/ret@cache", "that is no number"),
        ("redis://:sec?ret@cache", "option after `?`"),
        ("redis://cache/zero", "database that is no number"),
        ("redis://cache/0/1", "too many parts"),
        ("redis://cache?socket_timeout=60", "option after `?`"),
        ("redis+sentinel://:secret@a:1", "names no service"),
        ("redis+cluster://:secret@a:1/2", "has a database"),
        ("unix://", "names no socket"),
    ],
)
def test_a_wrong_url_is_refused_without_a_word_of_it(url: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=r"cache\.redis_url") as caught:
        parse_redis_url(url)
    assert sentence in str(caught.value)
    for part in ("secret", "sec", "ret@"):
        assert part not in str(caught.value)
