"""The table of faults in docs/operations.md and the tests that hold it belong together."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows_of_the_page() -> list[int]:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.partition("## What happens when")[2].partition("\n## ")[0]
    return [int(row) for row in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]


def rows_of_the_tests() -> set[int]:
    names = [
        node.name
        for path in (ROOT / "tests" / "faults").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {int(found[1]) for name in names if (found := re.match(r"test_row_(\d+)_", name))}


def test_each_row_is_there_once_and_in_order() -> None:
    rows = rows_of_the_page()
    assert rows == sorted(set(rows))
    assert len(rows) > 20


def test_each_row_has_a_test_and_each_test_a_row() -> None:
    assert set(rows_of_the_page()) == rows_of_the_tests()
