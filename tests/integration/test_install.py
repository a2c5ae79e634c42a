"""A newcomer's first minutes: the wheel in an empty environment, `make run` in a fresh copy."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest

from tamis import Reranker

ROOT = Path(__file__).parents[2]
WHEEL_BYTES = 50_000_000
TOLERANCE = 1e-4
QUERY = "苹果公司最新发布的AI功能"
DOCUMENTS = [
    "苹果发布会介绍新款iPhone和健康功能",
    "Apple Intelligence brings writing tools to iPhone, iPad and Mac.",
    "How to prune an apple tree in winter.",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def clean_environment(home: Path) -> dict[str, str]:
    """The environment of somebody who has just logged in: nothing of this project, no cache."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TAMIS_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS", "XDG_"))
    }
    return kept | {"XDG_CACHE_HOME": str(home / "cache")}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], *, cwd: Path, env: dict[str, str]) -> Iterator[None]:
    """A program and its children, ended with SIGINT as a person would."""
    process = subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)


def rerank_over_http(port: int, *, seconds: float) -> dict[int, float]:
    """Ask until the server answers; logits by index."""
    body = json.dumps({"query": QUERY, "documents": DOCUMENTS}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/rerank", body, {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request) as answer:
                results = json.load(answer)["results"]
                return {result["index"]: result["score"] for result in results}
        except (URLError, ConnectionError):
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.2)


@pytest.fixture(name="expected", scope="module")
def fixture_expected() -> dict[int, float]:
    """What this checkout's Reranker says, in this process."""
    return {ranked.index: ranked.logit for ranked in Reranker().rank(QUERY, DOCUMENTS)}


def assert_same(found: dict[int, float], expected: dict[int, float]) -> None:
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_the_wheel_works_in_an_empty_environment_without_the_repository(
    tmp_path: Path, expected: dict[int, float]
) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size <= WHEEL_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "tamis/models/mini/model.safetensors" in names
    assert not [name for name in names if name.startswith(("tests", "training", "benchmarks"))]
    environment = clean_environment(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    install = [python, "-m", "pip", "install", "--quiet", str(wheel), *constraints]
    subprocess.run(install, check=True, env=environment)
    installed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True)
    assert b"torch" not in installed.stdout
    ranked = subprocess.run(
        [tmp_path / "venv" / "bin" / "tamis", "rank", QUERY, "--json", "--offline"],
        input="\n".join(DOCUMENTS).encode(),
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
    )
    lines = [json.loads(line) for line in ranked.stdout.splitlines()]
    assert_same({line["index"]: line["logit"] for line in lines}, expected)
    port = free_port()
    serve = [python, "-m", "tamis", "serve", "--server.port", str(port)]
    with running(serve, cwd=tmp_path, env=environment):
        assert_same(rerank_over_http(port, seconds=60), expected)


def test_make_run_in_a_fresh_copy_installs_serves_and_reranks(
    tmp_path: Path, expected: dict[int, float]
) -> None:
    copy = tmp_path / "copy"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    port = free_port()
    with running(["make", "run", f"PORT={port}"], cwd=copy, env=clean_environment(tmp_path)):
        assert_same(rerank_over_http(port, seconds=300), expected)
