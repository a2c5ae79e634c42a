"""What the URL of a Redis says: a server, a service that Sentinels watch, or a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote

from tamis.errors import SettingsError

RedisKind = Literal["server", "socket", "sentinel", "cluster"]

_KINDS: dict[str, RedisKind] = {
    "redis": "server",
    "unix": "socket",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
_TLS_SCHEMES = {
    "rediss": "redis",
    "rediss+sentinel": "redis+sentinel",
    "rediss+cluster": "redis+cluster",
}
_PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
_CERT_REQS = ("none", "optional", "required")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_OPTIONS = ("db", "username", "password", *_TLS_OPTIONS, *_SENTINEL_OPTIONS)
_FORMS = (
    "redis://[user:password@]host:port/db, rediss:// (TLS), unix:///path/of.sock?db=0, "
    "redis+sentinel://host:port,host:port/service/db or redis+cluster://host:port,host:port"
)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The parts of a URL.

    Attributes:
        kind: What is at the other end.
        hosts: Names and ports; of the Sentinels, or of some of a cluster's nodes.
        path: Of the socket.
        service: What the Sentinels call the servers that are meant.
        database: Its number.
        tls: Whether connections are encrypted.
        tls_options: Certificate files and how the server's is verified, by redis-py's names.
        sentinel_login: User and password of the Sentinels themselves, by redis-py's names.
    """

    kind: RedisKind
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_options: Mapping[str, str] = field(default_factory=dict[str, str])
    sentinel_login: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


def parse_redis_url(url: str) -> RedisUrl:
    """Take a URL apart; what is left out of it is as redis-py has it.

    The forms with several hosts are those of the packages limits and redis-sentinel-url.

    Raises:
        SettingsError: it has another form; the sentence has nothing of it, as it holds a password.
    """
    scheme, _, rest = url.strip().partition("://")
    tls = scheme in _TLS_SCHEMES
    kind = _KINDS.get(_TLS_SCHEMES.get(scheme, scheme))
    if kind is None:
        raise _refusal(f"wants one of these forms: {_FORMS}")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    username, _, password = login.partition(":")
    options = _options(query)
    segments = [] if kind == "socket" else [unquote(part) for part in path.split("/") if part]
    service = segments.pop(0) if kind == "sentinel" and segments else ""
    database = _number(options.get("db") or "".join(segments[:1]) or "0", "database")
    found = RedisUrl(
        kind=kind,
        hosts=() if kind == "socket" else _hosts(hosts, _PORTS[kind]),
        path=f"/{unquote(path)}" if kind == "socket" else "",
        service=service,
        database=database,
        username=unquote(username) or options.get("username"),
        password=unquote(password) or options.get("password"),
        tls=tls,
        tls_options={name: options[name] for name in _TLS_OPTIONS if name in options},
        sentinel_login={
            name.removeprefix("sentinel_"): options[name]
            for name in _SENTINEL_OPTIONS
            if name in options
        },
    )
    _refuse_contradictions(found, n_segments=len(segments))
    return found


def _refuse_contradictions(url: RedisUrl, *, n_segments: int) -> None:
    if url.kind == "sentinel" and not url.service:
        raise _refusal("names no service: redis+sentinel://host:port,host:port/service/db")
    if url.kind == "socket" and url.path == "/":
        raise _refusal("names no socket: unix:///path/of.sock")
    if url.kind == "cluster" and url.database:
        raise _refusal("has a database, and clusters have no others than 0")
    if url.tls_options.get("ssl_cert_reqs", "required") not in _CERT_REQS:
        raise _refusal(f"has ssl_cert_reqs that is none of {', '.join(_CERT_REQS)}")
    if n_segments > 1:
        raise _refusal(f"has too many parts; wanted is one of {_FORMS}")


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= set(_OPTIONS):
        raise _refusal(
            f"has an option after `?` that is none of {', '.join(_OPTIONS)}; "
            "in a password, write special characters as %-codes"
        )
    return options


def _hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    return tuple(_host(one, default_port) for one in (text or "localhost").split(","))


def _host(text: str, default_port: int) -> tuple[str, int]:
    """A name and port; an IPv6 address stands in brackets."""
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        name, _, port = text.partition(":")
    number = _number(port, "port") if port else default_port
    if not name or not 0 < number < 65_536:
        raise _refusal("has a host without a name, or a port that cannot be")
    return unquote(name), number


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise _refusal(
            f"has a {what} that is no number; in a password, write special characters as %-codes"
        )
    return int(text)


def _refusal(what: str) -> SettingsError:
    return SettingsError(f"cache.redis_url {what}")
