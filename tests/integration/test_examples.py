"""Every example runs as it stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ARGUMENTS = {"serve_and_rerank.py": ["--once"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples run; the model is converted once."""
    return tmp_path_factory.mktemp("examples")


def run(name: str, folder: Path) -> str:
    environment = os.environ | {"TAMIS_SERVER__PORT": "18765", "XDG_CACHE_HOME": str(folder)}
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
