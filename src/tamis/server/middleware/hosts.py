"""By which names the server may be called, and from whose pages. Plain ASGI.

A browser on the same machine or network is the attacker's hand: a page can make a name of its own
point here (DNS rebinding), or simply post here. Neither ever carries a `Host` or `Origin` that is
the server's.
"""

import re
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tamis.errors import HostNotAllowedError, OriginNotAllowedError, TamisError
from tamis.server.endpoints.health import PROBES
from tamis.server.errors import refusal

RESERVED_NAMES = frozenset(
    {
        "localhost",  # RFC 6761: always this machine
        "test",  # RFC 6761: never in the public DNS
        "local",  # RFC 6762: multicast DNS; clusters' cluster.local is below it
        "internal",  # reserved by ICANN in 2024; host.docker.internal, *.containers.internal
        "home.arpa",  # RFC 8375: home networks
        "svc",  # no top-level domain; Kubernetes completes service.namespace.svc
    }
)
"""Ends of names that the public DNS cannot hand to a stranger, so that no page on the web can bind
one to this address. `lan`, `home` and `corp` are in wide use and reserved by nobody."""

_HOST = re.compile(r"(?P<name>[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?|\[[0-9a-f:.]+\])(:\d{1,5})?")

_LONGEST_HOST = 253 + len(".:65535")
"""Characters of a name that the DNS can have, its last dot and a port."""


class HostMiddleware:
    """Refuses requests for other names and from other sites' pages; probes may call by any name.

    Args:
        allowed: Names in addition to those that no stranger can own; `*.example.org`, `*`.
        own: Where the server listens.
        origins: Sites whose pages may call; `*`.
    """

    def __init__(
        self, app: ASGIApp, *, allowed: tuple[str, ...], own: str, origins: tuple[str, ...]
    ) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in (*allowed, own))
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        try:
            if scope["type"] == "http" and scope["path"] not in PROBES:
                self._require_allowed(Headers(scope=scope))
        except TamisError as error:
            await refusal(error, scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _require_allowed(self, headers: Headers) -> None:
        """Refuse a foreign `Host`, and pages of a foreign site.

        Raises:
            HostNotAllowedError: the server does not answer to this name.
            OriginNotAllowedError: pages of this origin may not call.
        """
        host = headers.get("host", "").lower()
        found = _HOST.fullmatch(host) if len(host) <= _LONGEST_HOST else None
        if not found or not self._is_allowed(found["name"].removesuffix(".")):
            raise HostNotAllowedError(
                "the server does not answer to this `Host`; add it to `server.allowed_hosts`"
            )
        origin = headers.get("origin")
        if origin is None or self._origins & {"*", origin.lower()}:
            return
        if origin.lower().partition("://")[2] != host:
            raise OriginNotAllowedError(
                "pages of this origin may not call; `server.cors_origins` can add it"
            )

    def _is_allowed(self, name: str) -> bool:
        """Addresses, names without a dot and reserved ones cannot be a stranger's."""
        if name.startswith("["):
            return _is_address(name[1:-1])
        if "." not in name or _is_address(name) or self._allowed & {"*", name}:
            return True
        parents = [name[at + 1 :] for at, letter in enumerate(name) if letter == "."]
        return not RESERVED_NAMES.isdisjoint((name, *parents)) or any(
            f"*.{parent}" in self._allowed for parent in parents
        )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def names_in(option: str) -> tuple[str, ...]:
    """The names of an option that has commas between them."""
    return tuple(name for part in option.split(",") if (name := part.strip()))
