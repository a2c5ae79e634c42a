"""All dialects, and which of them a request speaks.

A dialect is a file of this folder and its line in `DIALECTS`; docs/architecture.md has the steps.
"""

import re
from collections.abc import Iterator

import msgspec

from tamis.wire.dialect import Dialect, Endpoint, Failure, Method, RawBody
from tamis.wire.jina import JINA
from tamis.wire.native import NATIVE
from tamis.wire.tei import TEI

_VERSION = re.compile(r"v\d+")


class Registry:
    """Dialects in order, from the most general to the most specific.

    Args:
        dialects: On a path that several share, a request speaks the last one that recognizes its
            body. The first answers on all other paths.
    """

    def __init__(self, *dialects: Dialect) -> None:
        self.dialects = dialects
        self._at: dict[tuple[str, Method], list[tuple[Dialect, Endpoint]]] = {}
        self._speakers: dict[str, list[Dialect]] = {}
        for dialect in dialects:
            for path, endpoint in _paths_of(dialect):
                self._at.setdefault((path, endpoint.method), []).append((dialect, endpoint))
                speakers = self._speakers.setdefault(path, [])
                speakers += [] if dialect in speakers else [dialect]

    def places(self) -> Iterator[tuple[str, Method, list[Endpoint]]]:
        """Each path and method, with the endpoints that share it."""
        for (path, method), found in self._at.items():
            yield path, method, [endpoint for _, endpoint in found]

    def choose(self, path: str, method: Method, body: RawBody) -> tuple[Dialect, Endpoint]:
        """The dialect and endpoint that a body is for; `path` is one of `places`."""
        found = self._at[path, method]
        spoken = (one for one in reversed(found) if one[1].recognizes(body))
        return next(spoken, found[0])

    def speakers(self, path: str) -> list[Dialect]:
        """The dialects of a path; of an unknown path, those of the paths that it is most like.

        Paths are alike if their last parts are equal (`/api/rerank`), or else their first parts
        (`/infinity/nowhere`), unless that is a version.
        """
        if path in self._speakers:
            return self._speakers[path]
        for part in (_last_part, _first_part):
            known = [one for one in self._speakers if part(one) == part(path) != ""]
            alike = [one for path in known for one in self._speakers[path]]
            if alike:
                return [one for one in self.dialects if one in alike]
        return [self.dialects[0]]

    def encode_error(self, path: str, failure: Failure) -> tuple[int, object]:
        """Status and body of an error raised before the dialect is known.

        If dialects share the path, the body has the fields of all, so that each client finds its
        own. The first dialect decides the status, and the value of a field that several have.
        """
        status, answer = failure.status, dict[str, object]()
        for dialect in reversed(self.speakers(path)):
            status, body = dialect.encode_error(failure)
            answer |= msgspec.to_builtins(body)
        return status, answer


def _paths_of(dialect: Dialect) -> Iterator[tuple[str, Endpoint]]:
    return ((path, endpoint) for endpoint in dialect.endpoints for path in endpoint.paths)


def _last_part(path: str) -> str:
    return path.rpartition("/")[2]


def _first_part(path: str) -> str:
    first = path[1:].partition("/")[0]
    return "" if _VERSION.fullmatch(first) else first


DIALECTS = Registry(
    NATIVE,
    JINA,
    TEI,
)
