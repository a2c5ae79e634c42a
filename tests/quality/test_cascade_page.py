"""The page about cascades has the figures that were measured."""

import json
from pathlib import Path

import pytest
from benchmarks.cascade import tables

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("lines", [tables.quality_lines, tables.large_lines, tables.load_lines])
def test_the_cascade_page_has_the_measured_lines(lines: tables.Lines) -> None:
    saved = (ROOT / "benchmarks/results/cascade.json").read_text(encoding="utf-8")
    page = (ROOT / "docs/cascade.md").read_text(encoding="utf-8")
    assert "\n".join(lines(json.loads(saved)["measured"])) in page
