"""Every example runs as it stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ARGUMENTS = {"serve_and_rerank.py": ["--once"]}


def run(name: str, tmp_path: Path) -> str:
    environment = os.environ | {"TAMIS_SERVER__PORT": "18765", "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, str(EXAMPLES / name), *ARGUMENTS.get(name, [])]
    finished = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs_and_prints_something(path: Path, tmp_path: Path) -> None:
    assert run(path.name, tmp_path).strip()


def test_the_first_answer_puts_the_ai_features_first(tmp_path: Path) -> None:
    answer = run("serve_and_rerank.py", tmp_path).partition('"results"')[2]
    assert answer.index("Apple Intelligence") < answer.index("苹果发布会")
    assert answer.index("苹果发布会") < answer.index("苹果的营养价值")


def test_the_example_in_python_finds_photosynthesis(tmp_path: Path) -> None:
    first = run("rerank_in_python.py", tmp_path).splitlines()[0]
    assert "'id': 8" in first
