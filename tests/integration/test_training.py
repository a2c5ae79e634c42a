"""The toy: trained and exported by the program that makes the embedded model."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tamis import Reranker

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 180

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a toy was trained."""
    folder = tmp_path_factory.mktemp("toy")
    began = time.monotonic()
    train(folder)
    assert time.monotonic() - began < LONGEST_SECONDS
    return folder


def train(folder: Path) -> str:
    """Run the toy's training; returns what it says."""
    command = [sys.executable, "-m", "training.smoke", str(folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


def test_a_toy_is_trained_exported_and_ranks(output: Path, tmp_path: Path) -> None:
    documents = ["Berlin is the capital of Germany.", "Paris is the capital of France."]

    with Reranker(str(output / "model")) as toy:
        ranked = toy.rank("What is the capital of France?", documents)

    assert ranked[0].index == 1
    assert (output / "training.png").stat().st_size > 10_000


def test_a_second_run_finds_everything_done(output: Path) -> None:
    before = (output / "model" / "model.safetensors").read_bytes()

    said = train(output)

    assert "4/4" in said
    assert "0/4" not in said
    assert (output / "model" / "model.safetensors").read_bytes() == before
