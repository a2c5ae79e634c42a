"""Where results are saved, each with the machine it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from training.machine import describe_machine

RESULTS_FOLDER = Path(__file__).parent / "results"


def save_result(folder: Path, name: str, content: Mapping[str, object]) -> None:
    """Writes one result file."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": describe_machine(), **content}, indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
