"""Technical English: what functions and classes are for, out of the docstrings of packages.

A summary line asks for the rest of its docstring. The packages are of physics, engineering,
statistics and biology, and all under permissive licences (BSD, MIT, Apache 2.0, ISC).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from training.corpora import Row

SOURCE = "manuals"
PACKAGES = (
    "aerosandbox==4.2.10",
    "astropy==8.0.2",
    "biopython==1.88",
    "chemicals==1.5.2",
    "control==0.10.2",
    "fluids==1.3.1",
    "ht==1.2.0",
    "landlab==2.11.0",
    "librosa==0.11.0",
    "metpy==1.7.1",
    "mne==1.13.2",
    "networkx==3.6.1",
    "nilearn==0.14.1",
    "openmdao==3.45.1",
    "plasmapy==2025.8.0",
    "pvlib==0.16.1",
    "pymc==5.28.5",
    "qutip==5.3.1",
    "scikit-bio==0.7.4",
    "scikit-image==0.26.0",
    "scikit-learn==1.9.1",
    "scipy==1.17.1",
    "statsmodels==0.15.0",
    "sympy==1.14.0",
    "thermo==0.6.1",
)
# What is downloaded does not depend on the machine.
_FOR = (
    *("--only-binary=:all:", "--no-deps", "--python-version=3.11", "--implementation=cp"),
    *(f"--platform=manylinux_2_{n}_x86_64" for n in (28, 27, 24)),
    *("--platform=manylinux2014_x86_64", "--platform=any"),
)

LEAST_SUMMARY_WORDS = 5
MOST_SUMMARY_CHARACTERS = 200
LEAST_WORDS = 30
LEAST_LETTERS = 0.88  # and spaces; the rest is formulas and code
_PROSE = ("notes", "description", "background", "extended summary")
_UNDERLINE = re.compile(r"^\s*[-=~^*]{3,}\s*$")
_NO_PROSE = re.compile(
    r"\s*(\.\.|>>>|:|[-*|+]|\d+\.)"
    r"|.*^\s*(>>>|:param|:type|(Args|Arguments|Parameters|Returns|Raises):)"
    r"|.*([Cc]opyright|Permission is hereby)",
    re.MULTILINE | re.DOTALL,
)
_MARKUP = (
    (re.compile(r":[a-z:]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`"), r"\1"),
    (re.compile(r"`+([^`]*?)(?:\s*<[^`]*>)?`+_*"), r"\1"),
    (re.compile(r"\s*\[\w+\]_"), ""),
    (re.compile(r"\|(\w+)\|"), r"\1"),
    (re.compile(r"\*\*?(\w[^*\n]*?)\*\*?"), r"\1"),
    (re.compile(r"::"), ":"),
)


def read_manuals(work: Path) -> list[Row]:
    """Downloads the packages once, and reads what their docstrings say.

    Raises:
        RuntimeError: one cannot be downloaded.
    """
    folder = work / SOURCE
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for package in PACKAGES:
        name, _, version = package.replace("-", "_").partition("==")
        pattern = f"{name}-{version}-*.whl"
        if not list(folder.glob(pattern)):
            command = [sys.executable, "-m", "pip", "download", "-q", package, *_FOR]
            if subprocess.run([*command, "-d", str(folder)], check=False).returncode:
                raise RuntimeError(f"pip could not download {package}: what it said stands above")
        rows += _of_wheel(next(folder.glob(pattern)), name)
    return list({row.positive: row for row in rows}.values())


def _of_wheel(path: Path, package: str) -> Iterator[Row]:
    with zipfile.ZipFile(path) as wheel:
        for name in sorted(wheel.namelist()):
            if name.endswith(".py") and "/test" not in name:
                for number, (summary, rest) in enumerate(manual(wheel.read(name).decode())):
                    yield Row(f"{name} {number}", summary, rest, "en", f"{package} {name}")


def manual(code: str) -> Iterator[tuple[str, str]]:
    """The summary and the further prose of each docstring of a module that has enough of both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # escapes in docstrings
        tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            summary, *paragraphs = _paragraphs(ast.get_docstring(node) or "") or [""]
            rest = " ".join(paragraphs)
            letters = sum(c.isalpha() or c.isspace() for c in rest) / max(1, len(rest))
            if (
                len(summary.split()) >= LEAST_SUMMARY_WORDS
                and len(summary) <= MOST_SUMMARY_CHARACTERS
                and len(rest.split()) >= LEAST_WORDS
                and letters >= LEAST_LETTERS
            ):
                yield summary, rest


def _paragraphs(docstring: str) -> list[str]:
    """Paragraphs of prose, without markup: not those of sections like `Parameters`."""
    lines = docstring.split("\n")
    kept: list[str] = []
    is_prose = True
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line.strip() and _UNDERLINE.match(below) and not _UNDERLINE.match(line):
            is_prose = line.strip().lower() in _PROSE
            kept.append("")
        elif is_prose:
            kept.append("" if _UNDERLINE.match(line) else line)
    found = re.split(r"\n\s*\n", "\n".join(kept))
    return [plain for plain in map(_plain, found) if plain]


def _plain(paragraph: str) -> str:
    if _NO_PROSE.match(paragraph) or paragraph.count("\\") > 2:
        return ""
    for pattern, instead in _MARKUP:
        paragraph = pattern.sub(instead, paragraph)
    return " ".join(paragraph.split())
