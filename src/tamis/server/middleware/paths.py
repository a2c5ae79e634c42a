"""One spelling for each path, before anything else looks at it. Plain ASGI."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#]*)", re.IGNORECASE)
_SLASHES = re.compile(r"//+")
_LONGEST_COMPARED = 64
"""Characters of an unknown path that are compared with the known ones."""


class PathMiddleware:
    """Answers `/rerank/`, `//rerank` and `POST http://host/rerank` as `/rerank`.

    Clients join a base address and a path carelessly, and a redirect would lose the body of a
    POST. Hosts, keys, ports and routes all see the one spelling. `raw_path` stays as it was sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            _normalize(scope)
        await self._app(scope, receive, send)


def nearest_path(path: str, known: Iterable[str]) -> str | None:
    """The known path that an unknown one is most like; None where none is near."""
    asked = path[:_LONGEST_COMPARED].lower()
    spelled = {one.lower(): one for one in known}
    found = get_close_matches(asked, spelled, n=1, cutoff=0.7)
    if not found:  # a prefix of another server: /api/rerank, /v2/rerank
        last = asked.rpartition("/")[2]
        ends = {one.rpartition("/")[2]: one for one in reversed(spelled)}
        found = [ends[name] for name in get_close_matches(last, ends, n=1, cutoff=0.7)]
    return spelled[found[0]] if found else None


def _normalize(scope: Scope) -> None:
    path: str = scope["path"]
    raw_path: bytes = scope["raw_path"]
    absolute = _ABSOLUTE.match(raw_path)
    if absolute is not None:  # RFC 9112, 3.2.2: the target's authority counts, not the header
        path = unquote(raw_path[absolute.end() :].decode("ascii"))
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [(b"host", absolute["authority"]), *others]
    path = _SLASHES.sub("/", path)
    scope["path"] = path.rstrip("/") or "/"
