"""Saved results: a JSON file a script, with the machine, the versions and the commit."""

import json
from pathlib import Path
from typing import Any

from tamis.bench.environment import PACKAGES, environment

RESULTS = Path(__file__).parent / "results"


def save(name: str, measured: dict[str, Any]) -> Path:
    """Write a result with the environment it was measured in; returns the file."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    content = {"environment": environment((*PACKAGES, "transformers")), "measured": measured}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
