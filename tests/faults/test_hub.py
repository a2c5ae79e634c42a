"""Rows 52 and 53: a hub in trouble, and a conversion that is killed."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.hub_server import Repository, running_hub
from tests.integration.serving import Shell

NAME = "tamis-tests/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Variables = dict[str, str]


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[Variables]:
    """A server that says the same to everyone; a redirect leads to where it was asked for."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if status == 302:
                self.send_header("Location", self.path)
            self.end_headers()
            self.wfile.write(body if self.command == "GET" else b"")

        do_HEAD = do_GET  # noqa: N815 -- the name that http.server calls

        def log_message(self, *args: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def hanging() -> Iterator[Variables]:
    """A hub that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield {"HF_ENDPOINT": endpoint, "HF_HUB_ETAG_TIMEOUT": "1"}


@contextmanager
def unresolvable() -> Iterator[Variables]:
    """A name that no resolver knows."""
    yield {"HF_ENDPOINT": "http://hub.invalid"}


@contextmanager
def homeless() -> Iterator[Variables]:
    """A home that is not there and cannot be made, and no hub."""
    yield {"HF_ENDPOINT": "http://127.0.0.1:9", "HOME": "/proc/nobody"}


TROUBLES: dict[str, Callable[[], object]] = {
    "redirect loop": lambda: answering(302, b""),
    "captive portal": lambda: answering(200, b"<html>log in</html>", Content_Type="text/html"),
    "another shape": lambda: answering(200, b"[]", Content_Type="application/json"),
    "cut": lambda: answering(200, b'{"id": "tam', Content_Length="5000"),
    "no such host": unresolvable,
    "hangs": hanging,
    "no home": homeless,
}


def keep(home: Path, model: Path) -> None:
    """A model in the hub's cache, as another program leaves it."""
    repository = home / "hub" / f"models--{NAME.replace('/', '--')}"
    shutil.copytree(model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_row_52_a_hub_in_trouble(
    shell: Shell, tiny_model: Path, tmp_path: Path, trouble: str
) -> None:
    rank = ("rank", "what is a panda?", "-", "-m", NAME)
    with ExitStack() as stack:
        variables = stack.enter_context(TROUBLES[trouble]())  # type: ignore[arg-type]  # a table
        own = variables | {"HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1,hub.invalid"}
        refused = shell.run(*rank, given="a bear\n", **own)
        keep(tmp_path, tiny_model)
        ranked = shell.run(*rank, given="a bear\n", **own)

    assert refused.code in (69, 78), refused.err
    assert refused.sentence.startswith("tamis: ")
    assert "Traceback" not in refused.err
    assert (ranked.code, "a bear" in ranked.out) == (0, True), ranked.err


def test_row_52_a_cache_that_cannot_be_written(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "hub").write_text("")  # stays unwritable for root too
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    with running_hub() as hub:
        hub.repositories[NAME] = Repository()
        hub.repositories[NAME].commit(files, "main")
        done = shell.run(*("models", "pull", NAME), HF_HOME=str(tmp_path), HF_ENDPOINT=hub.endpoint)

    assert done.code == 78, done.err
    last = done.err.splitlines()[-1]  # the client shows its progress before
    assert last.startswith("tamis: ")
    assert "set HF_HOME to a folder" in last
    assert "Traceback" not in done.err


KILLED = """
import os, signal, sys
from pathlib import Path
from tamis.engine.ctranslate2.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "made").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_row_53_what_a_killed_conversion_left_is_removed_at_the_next_start(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "converted"
    cache.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(cache)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(cache.glob(".converting.*"))) == 1

    rank = ("rank", "what is a panda?", "-", "-m", tiny_model)
    ranked = shell.run(*rank, given="a bear\n", TAMIS_MODEL__CACHE_DIR=str(tmp_path))

    assert ranked.code == 0, ranked.err
    assert list(cache.glob(".converting.*")) == []
    assert len(list(cache.iterdir())) == 1
