"""One name for each thing: no two classes or types share one, and no two modules a file's."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/tamis"
MODULES = [path.relative_to(SOURCE) for path in sorted(SOURCE.rglob("*.py"))]

FOLDERS_OF_THEIR_OWN = {
    "engine/ctranslate2": "a folder a library, with the same files in each",
    "engine/torch": "a folder a library, with the same files in each",
    "cli": "a verb's file is named after the verb",
    "server/endpoints": "an endpoint's file is named after its path",
    "server/middleware": "a middleware's file is named after what it looks at",
}
"""Folders whose files may be named like others, and why."""
SHARED_FILE_NAMES = {
    "__init__.py": "Python's own name",
    "errors.py": "the errors, and in `server` what becomes of each over HTTP",
    "backend.py": "the protocol `Backend` with the one here, and the one on a worker",
}
"""File names that two modules share, and why."""


def types(path: Path) -> Iterator[str]:
    """Classes of a module, nested and private ones too, and its public aliases (`State = ...`)."""
    tree = ast.parse((SOURCE / path).read_text(encoding="utf-8"))
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node in tree.body:
        if isinstance(node, ast.Assign) and not is_type_variable(node.value):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from (name for name in names if name[0].isupper() and not name.isupper())


def is_type_variable(value: ast.expr) -> bool:
    """Whether it is `TypeVar("X")`: a letter in a formula, not a thing."""
    return isinstance(value, ast.Call) and getattr(value.func, "id", "").startswith("TypeVar")


def shared(names: Iterator[tuple[str, Path]]) -> dict[str, list[str]]:
    """Names that several modules have, and the modules."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, path in names:
        found[name].append(path.as_posix())
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def test_no_two_classes_share_a_name() -> None:
    names = ((name, path) for path in MODULES for name in types(path))
    assert shared(names) == {}


def test_no_two_modules_share_a_file_name() -> None:
    names = (
        (path.name, path) for path in MODULES if path.parent.as_posix() not in FOLDERS_OF_THEIR_OWN
    )
    found = shared(names)
    assert {name: found[name] for name in found if name not in SHARED_FILE_NAMES} == {}
    assert SHARED_FILE_NAMES.keys() <= found.keys()
