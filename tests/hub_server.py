"""A small server that speaks as much of the Hugging Face hub's API as its own client asks for.

Paths, headers and answers follow the client (`huggingface_hub`) and the hub's OpenAPI
description: model info, tree, and `resolve` with redirects to a second path that serves ranges.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

INFO = re.compile(r"/api/models/(?P<repo>[\w.-]+/[\w.-]+)(?:/revision/(?P<revision>[^/?]+))?$")
TREE = re.compile(r"/api/models/(?P<repo>[\w.-]+/[\w.-]+)/tree/(?P<revision>[^/?]+)$")
RESOLVE = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)$")
STORAGE = re.compile(r"/storage/(?P<digest>[0-9a-f]{64})$")
LFS_BYTES = 1000
"""Files from this size on are kept as the hub keeps large files: by sha256, elsewhere."""


@dataclass
class Repository:
    """Files by commit, and names of commits.

    Attributes:
        gated: Whether it answers only those whose terms it knows accepted.
        described: Digests that are told of a file although its bytes have others.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    described: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], *names: str) -> str:
        """Add a commit and point names (branches, tags) at it."""
        content = json.dumps({name: _sha256(data) for name, data in files.items()})
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = files
        self.names.update(dict.fromkeys(names, sha))
        return sha

    def find(self, revision: str) -> str | None:
        """The commit that a branch, tag or commit stands for."""
        sha = self.names.get(revision, revision)
        return sha if sha in self.commits else None


class Hub(ThreadingHTTPServer):
    """Repositories by name, and what was asked of them.

    Attributes:
        requests: Method and path (and range, where one was asked for) of every request.
        broken_after: The connection is lost after so many bytes of a large file.
        refuses_rest: Nobody gets the rest of a file after that.
        trouble: The status that every request gets, whatever it asks for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.broken_after: int | None = None
        self.refuses_rest = False
        self.trouble: int | None = None

    @property
    def endpoint(self) -> str:
        """What `HF_ENDPOINT` is set to."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage(self) -> str:
        """Where large files are redirected to: another host, as far as a client can tell."""
        return f"http://localhost:{self.server_port}"

    def downloads(self, ending: str) -> list[str]:
        """Requests for the bytes of files."""
        return [line for line in self.requests if line.startswith("GET") and ending in line]

    def blob(self, digest: str) -> bytes | None:
        """The bytes that some repository describes by this sha256."""
        for repository in self.repositories.values():
            for files in repository.commits.values():
                for name, data in files.items():
                    if repository.described.get(name, _sha256(data)) == digest:
                        return data
        return None


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of this machine."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        """Write nothing; `Hub.requests` has it."""

    def _answer(self) -> None:
        path, _, _ = self.path.partition("?")
        range_asked = self.headers.get("Range", "")
        self.server.requests.append(f"{self.command} {path} {range_asked}".strip())
        if self.server.trouble is not None:
            self._send(self.server.trouble, b"")
            return
        if match := STORAGE.match(path):
            self._send_stored(match["digest"], range_asked)
            return
        for pattern, send in ((INFO, self._info), (TREE, self._tree), (RESOLVE, self._resolve)):
            if match := pattern.match(path):
                groups = match.groupdict()
                self._send_of(groups, send)
                return
        self._send(404, b"")

    def _send_of(self, groups: dict[str, str | None], send: object) -> None:
        repository = self.server.repositories.get(groups["repo"] or "")
        if repository is None:
            self._send(404, b"Repository not found", {"X-Error-Code": "RepoNotFound"})
            return
        sha = repository.find(unquote(groups.get("revision") or "main"))
        if sha is None:
            self._send(404, b"Invalid rev id", {"X-Error-Code": "RevisionNotFound"})
        elif repository.gated:
            self._send(403, b"Access is restricted", {"X-Error-Code": "GatedRepo"})
        else:
            send(repository, sha, groups)  # type: ignore[operator]  # a table of methods

    def _info(self, repository: Repository, sha: str, groups: dict[str, str]) -> None:
        siblings = [
            {"rfilename": name, "size": len(data)} | _lfs(repository, name, data)
            for name, data in repository.commits[sha].items()
        ]
        answer = {"id": groups["repo"], "modelId": groups["repo"], "sha": sha, "tags": []}
        self._send_json(answer | {"siblings": siblings, "private": False, "downloads": 0})

    def _tree(self, repository: Repository, sha: str, groups: dict[str, str]) -> None:
        self._send_json(
            [
                {"type": "file", "path": name, "size": len(data), "oid": _git_oid(data)}
                | _lfs(repository, name, data, digest_key="oid")
                for name, data in repository.commits[sha].items()
            ]
        )

    def _resolve(self, repository: Repository, sha: str, groups: dict[str, str]) -> None:
        name = unquote(groups["name"])
        data = repository.commits[sha].get(name)
        if data is None:
            self._send(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": sha}
        lfs = _lfs(repository, name, data).get("lfs")
        if lfs is None:
            self._send(200, data, headers | {"ETag": f'"{_git_oid(data)}"'})
            return
        linked = {"X-Linked-Etag": f'"{lfs["sha256"]}"', "X-Linked-Size": str(len(data))}
        location = {"Location": f"{self.server.storage}/storage/{lfs['sha256']}"}
        self._send(302, b"", headers | linked | location)

    def _send_stored(self, digest: str, range_asked: str) -> None:
        data = self.server.blob(digest)
        if data is None:
            self._send(404, b"")
            return
        start = int(range_asked.removeprefix("bytes=").partition("-")[0] or 0)
        whole = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if start and self.server.refuses_rest:
            self._send(503, b"")
        elif start:
            part = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            self._send(206, data[start:], whole | part)
        else:
            self._send(200, data, whole, stop_after=self.server.broken_after)

    def _send_json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        stop_after: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:stop_after])
        if stop_after is not None:
            self.close_connection = True


def _lfs(
    repository: Repository, name: str, data: bytes, *, digest_key: str = "sha256"
) -> dict[str, dict[str, object]]:
    if len(data) < LFS_BYTES:
        return {}
    digest = repository.described.get(name, _sha256(data))
    return {"lfs": {digest_key: digest, "size": len(data), "pointerSize": 134}}


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
