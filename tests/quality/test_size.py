"""Functions and files stay small; nesting stays shallow."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
FILES = sorted(SOURCE.rglob("*.py"))
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith, ast.Match)


def functions() -> Iterator[tuple[str, int]]:
    """Name and length in lines of every function."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path.name}:{node.name}", node.end_lineno - node.lineno + 1


def depth(node: ast.AST) -> int:
    """How many blocks stand inside each other; an elif is no deeper than its if."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        is_elif = (
            isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse[:1] == [child]
        )
        step = 1 if isinstance(child, BLOCKS) and not is_elif else 0
        deepest = max(deepest, step + depth(child))
    return deepest


def test_functions_are_short() -> None:
    lengths = sorted(length for _, length in functions())
    assert len(lengths) > 100
    assert statistics.median(lengths) <= 10
    assert lengths[int(0.9 * len(lengths))] < 35
    assert [name for name, length in functions() if length > 60] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_has_at_most_400_lines_and_four_levels(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    assert depth(ast.parse(text)) <= 4
