"""Where results are saved, each with the machine it comes from; and arrays, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.machine import describe_machine

RESULTS_FOLDER = Path(__file__).parent / "results"


def save_result(folder: Path, name: str, content: Mapping[str, object]) -> None:
    """Writes one result file."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": describe_machine(), **content}, indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def save_bytes(path: Path, content: bytes) -> None:
    """Writes a file that later runs read: a run that is killed leaves no part of it."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.rename(path)


def save_array(path: Path, array: NDArray[np.generic]) -> None:
    """Writes an array that later runs read: a run that is killed leaves no part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, array)
    partial.rename(path)


def save_arrays(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Writes several arrays in one file that later runs read, in the same way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.rename(path)
