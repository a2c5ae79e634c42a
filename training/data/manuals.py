"""Technical English: what functions and classes are for, out of the docstrings of packages.

A summary line asks for the rest of its docstring. The packages are of physics, engineering,
statistics and biology, and all under permissive licences (BSD, MIT, Apache 2.0, ISC).
"""

from __future__ import annotations

import ast
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from training.data.corpora import Row
from training.data.wheels import fetch_wheel

SOURCE = "manuals"
PACKAGES = {  # SHA-256 of the wheel
    "aerosandbox==4.2.10": "42f4b5b4a67f828f8b893033baa909384c3d7bc3be700d5b3c55ab6a18c1f35d",
    "astropy==8.0.2": "000d6998bcf4f097257b3776f29f1dafde0967bf1b091edbad95df564eee4eea",
    "biopython==1.88": "99e1f7022ab8eee2ae9e9a05b66ad183b9fe4eeb4e561a65ed0fd85eef5f8267",
    "chemicals==1.5.2": "f85ef7f36e77fee634686c26562929ee61026cd548d89cebd57b2251ca843d6e",
    "control==0.10.2": "8f7b5c58f5ccd761a6c070e3dedceca4c53c7a9cf105fcc22caba7a67f99025a",
    "fluids==1.3.1": "d9097efe57c910ac14b89a1984d5e7062ee9df1afc84e089d944fdd85404e361",
    "ht==1.2.0": "a4716bc3c8a9ef5e3dfff68d552232ba6f05c0edd3caa07fb72bee2306975ace",
    "landlab==2.11.0": "8c3b4531e2954e06e44f281ad97dc5966cffe3bffb7d1b9f34a785eb01bc3c97",
    "librosa==0.11.0": "0b6415c4fd68bff4c29288abe67c6d80b587e0e1e2cfb0aad23e4559504a7fa1",
    "metpy==1.7.1": "b184a1786a730f7926ec5fa58618cd0935a21f8088a13b268dd7267f9e104efc",
    "mne==1.13.2": "36bbdd9fdc68431309a75e9dc6331b9de085cb6836688ac50b7b89f141a83cc3",
    "networkx==3.6.1": "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
    "nilearn==0.14.1": "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a",
    "openmdao==3.45.1": "2ac96fcd3ebd4f3096d527f6f792f4b5ddb8823093c2fff1f89f147159fab6da",
    "plasmapy==2025.8.0": "ad26d7e9919389efb900854708767930ec28c0afcbf1c15c4f58a96c07f998f1",
    "pvlib==0.16.1": "4e61b5228a13f782413d7cf8cc48eb6e62e7bf55d155958fa9fd72420b63603d",
    "pymc==5.28.5": "29f44aa3edd727b29eb0a555eec0d9def4775a5d5c849eee31239384a5feaec2",
    "qutip==5.3.1": "8353fd3a5c438e3154068b229a4c7ea4b420411c7c967b84ba9a97f5f439fa50",
    "scikit-bio==0.7.4": "5d4dfdd00ad767c9a0e79044fed86c9d86624587839aa2eddc716994dbf25a2b",
    "scikit-image==0.26.0": "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    "scikit-learn==1.9.1": "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    "scipy==1.17.1": "43af8d1f3bea642559019edfe64e9b11192a8978efbd1539d7bc2aaa23d92de4",
    "statsmodels==0.15.0": "b67886b66d9c7ca118526accedb5c6de7ffd74c015dc0492ea0b1690192b65da",
    "sympy==1.14.0": "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
    "thermo==0.6.1": "0c16937885feddcb0d4d1589b4ebdef22c186302a83fbac7ed51fc252a451048",
}
# What is downloaded does not depend on the machine.
_FOR = (
    *("--only-binary=:all:", "--python-version=3.11", "--implementation=cp"),
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
        CalledProcessError: one cannot be downloaded; pip has said why.
        ValueError: one is not what it was.
    """
    rows: list[Row] = []
    for package, wanted in PACKAGES.items():
        path = fetch_wheel(package, wanted, work / SOURCE, _FOR)
        rows += _of_wheel(path, package.partition("==")[0].replace("-", "_"))
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
