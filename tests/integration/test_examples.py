"""Every example runs as it stands."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ARGUMENTS = {"serve_and_rerank.py": ["--once"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples run; the model is converted once."""
    return tmp_path_factory.mktemp("examples")


def run(name: str, folder: Path) -> str:
    environment = os.environ | {"TAMIS_SERVER__PORT": "0", "XDG_CACHE_HOME": str(folder)}
    command = [sys.executable, str(EXAMPLES / name), *ARGUMENTS.get(name, [])]
    finished = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs_and_prints_something(path: Path, folder: Path) -> None:
    assert run(path.name, folder).strip()


def test_the_first_answer_puts_the_ai_features_first(folder: Path) -> None:
    answer = run("serve_and_rerank.py", folder).partition('"results"')[2]
    assert answer.index("Apple Intelligence") < answer.index("苹果发布会")
    assert answer.index("苹果发布会") < answer.index("苹果的营养价值")


def test_the_example_in_python_finds_photosynthesis(folder: Path) -> None:
    first = run("rerank_in_python.py", folder).splitlines()[0]
    assert "'id': 8" in first


SERVE = str(EXAMPLES / "serve_and_rerank.py")
GONE_SECONDS = 20.0


@contextmanager
def serving(folder: Path, *command: str) -> Generator[tuple["subprocess.Popen[str]", int]]:
    """A program that serves the example, and its port."""
    environment = os.environ | {"TAMIS_SERVER__PORT": "0", "XDG_CACHE_HOME": str(folder)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        line = next(line for line in program.stdout if line.startswith("Serving on"))
        found = re.search(r":(\d+);", line)
        assert found is not None
        try:
            yield program, int(found[1])
        finally:
            program.kill()
            program.stdout.read()


def is_free(port: int) -> bool:
    """Whether the server ends in the time it has."""
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) != 0:
                return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda s: s.name
)
def test_the_server_ends_with_the_example_however_it_ends(
    folder: Path, number: signal.Signals
) -> None:
    with serving(folder, sys.executable, SERVE) as (program, port):
        program.send_signal(number)
        assert program.wait(GONE_SECONDS) == (-9 if number is signal.SIGKILL else 0)
        assert is_free(port)


def test_the_server_ends_with_the_program_that_started_the_example(folder: Path) -> None:
    shell = f"{sys.executable} {SERVE} --end-with-parent & wait"
    with serving(folder, "/bin/sh", "-c", shell) as (program, port):
        program.kill()
        assert is_free(port)


@pytest.mark.parametrize("port", ["taken", "many", "70000", "-1"])
def test_a_port_that_cannot_be_had_is_one_sentence(folder: Path, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        name = str(taken.getsockname()[1]) if port == "taken" else port
        done = subprocess.run(
            [sys.executable, SERVE, "--once"],
            env=os.environ | {"TAMIS_SERVER__PORT": name, "XDG_CACHE_HOME": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr
    assert "make run PORT=9000" in done.stderr


def test_a_server_that_refuses_the_example_is_one_sentence_and_ends(folder: Path) -> None:
    keys = folder / "keys.txt"
    made = subprocess.check_output(
        [sys.executable, "-m", "tamis", "keys", "make", "web"], stderr=subprocess.DEVNULL
    )
    keys.write_bytes(made)
    environment = {"TAMIS_SERVER__PORT": "0", "TAMIS_SERVER__KEYS_FILE": str(keys)}
    done = subprocess.run(
        [sys.executable, SERVE],
        env=os.environ | environment | {"XDG_CACHE_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "/rerank answers 401" in done.stderr
    assert "Traceback" not in done.stderr
