"""What must hold for every file of the repository."""

import re
import subprocess
from pathlib import Path

import pytest

import tamis

ROOT = Path(__file__).parents[2]
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "handler", "misc"}
VENDORED = "src/tamis/server/swagger/"


def tracked_files() -> list[str]:
    """Files of the repository, committed or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    """Text files of ours, by name."""
    found: dict[str, str] = {}
    for name in tracked_files():
        if name.startswith(VENDORED) or name.endswith("tokenizer.json"):
            continue
        try:
            found[name] = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def test_there_are_files_to_look_at() -> None:
    assert "src/tamis/__init__.py" in texts()


def test_no_module_has_a_vague_name() -> None:
    words = {
        name: set(re.split(r"[/_.]", name)) for name in tracked_files() if name.endswith(".py")
    }
    assert [name for name, parts in words.items() if parts & VAGUE] == []


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("an open task without an issue", r"\b(TO[D]O|FIX[M]E|X[X]X)\b(?!\(#\d+\))"),
        ("a folder of some machine", r"(?<![\w.~/-])/(root|home|work|Users)/\w"),
        ("a package registry's host", r"\b(pypi\.org|pythonhosted\.org|registry\.npmjs\.org)\b"),
        ("a lint exception without a reason", r"# noqa(: [A-Z0-9, ]+)?\s*$"),
        ("a type exception without a reason", r"# (type|pyright): ignore(\[[\w, -]+\])?\s*$"),
    ],
)
def test_nothing_contains(what: str, pattern: str) -> None:
    own = Path(__file__).relative_to(ROOT).as_posix()
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}"
        for name, text in texts().items()
        if name != own
        for match in re.finditer(pattern, text, re.MULTILINE)
    ]
    assert found == [], what


def test_the_changelog_knows_this_version() -> None:
    assert f"## {tamis.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/decisions").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_default_install_has_no_torch_and_no_ray() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    default = text.partition("dependencies = [")[2].partition("]\n")[0]
    assert "ctranslate2" in default
    assert not re.search(r'"(torch|ray|transformers)\b', default)
