"""Documents, docstrings, comments and messages use the words of the field.

A word in this list is one that engineers do not write, or write in another sense. The message of a
failure names the file, the line and what to write instead.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = (
    *("README*.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile"),
    *("docs/**/*.md", "docs/*.py", "deploy/**/*.*", "examples/*.py"),
    *("training/*.md", "training/**/*.py", "benchmarks/*.md", "benchmarks/**/*.py"),
    *("src/tamis/**/*.py", "src/tamis/models/**/*.md"),
)
VENDORED = "src/tamis/server/swagger/"

INSTEAD = {
    r"anew": "again, or the verb with re-",
    r"so many (?!that\b)\w+": "the number, or `n_… of them`",
    r"so many[.;:,]": "the number",
    r"(in|one in) so many": "the number",
    r"for want of": "because there is no, for lack of",
    r"who(m|so)?ever": "anyone who, or the actor's name",
    r"thereby|therein|thereof|thereupon|hereby|herein": "by this, in it, of it",
    r"wherein|whereof|whereupon|whence|hither|thither|hitherto": "in which, of which, from where",
    r"henceforth|forthwith|lest|nigh|amiss|upon|shall": "a current word",
    r"beside": "compared with, next to, during, in addition to",
    r"what (it )?is asked": "the request",
    r"who (asks|pays|waits) for it": "the caller",
    r"st(ands?|ood) in for": "replaces, takes over",
    r"stand-ins?": "fallback, or test double",
    r"mourn(s|ed|ing)?": "a plain verb: code does not mourn",
    r"hires?|hired|hiring": "starts: processes are not hired",
    r"colleagues?": "siblings, other workers",
    r"last words": "exit reason, last log lines",
    r"machines? wander|wander(s|ed|ing)?": "drift, vary",
    r"(cheap|dear) (model|stage)|dearer|dear": "first-stage or main model; costs more",
    r"kin": "similar models",
    r"spoilt|spoiled": "corrupt",
    r"mends?|mended": "fix",
    r"but for": "except",
    r"batch[- ]mates?": "other pairs of the batch",
    r"(how|as) .{1,20} fares?": "metrics of it, how it goes",
    r"by a hair": "narrowly",
    r"what is so": "the condition, the state",
    r"called so": "marked as such",
    r"thrown away": "discarded",
    r"out of order": "down, unavailable",
}
"""What nobody in the field writes (regular expressions), and what to write instead."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Text that may stay as it is.

    Attributes:
        place: The file.
        text: A part of the line.
        reason: Why it stays.
    """

    place: str
    text: str
    reason: str


EXCEPTIONS = (
    Allowed("docs/glossary.md", "*stand-in*", "the name that `/readyz` and a metric have"),
    Allowed("docs/performance_page.py", 'server beside engine"', "a key of a saved result"),
    Allowed("benchmarks/server_overhead.py", '{way} beside {base}"', "a key of a saved result"),
    Allowed("benchmarks/drift_texts.py", "Whoever pays", "a text that is scored"),
    Allowed("training/data/manuals.py", "Permission is hereby", "a licence's text"),
)
"""Each has to be used; the place may be a folder."""

_SPACES = r"[\s#]+"  # a turn may go on in the next line, of a comment too
PATTERNS = {
    re.compile(rf"\b(?:{listed.replace(' ', _SPACES)})(?!\w)", re.IGNORECASE): instead
    for listed, instead in INSTEAD.items()
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A listed word, where it is, its line, and what to write instead."""

    place: str
    line: int
    text: str
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.place}:{self.line}: {self.word!r}; write {self.instead}"


def found_in(place: str, text: str) -> Iterator[Finding]:
    """Every listed word of a text."""
    lines = text.split("\n")
    for pattern, instead in PATTERNS.items():
        for match in pattern.finditer(text):
            number = text.count("\n", 0, match.start())
            yield Finding(place, number + 1, lines[number], match[0], instead)


def is_excepted(finding: Finding, exception: Allowed) -> bool:
    """Whether it may stay for this reason."""
    return finding.place.startswith(exception.place) and exception.text in finding.text


def places() -> list[str]:
    """The files that are searched."""
    paths = {path for pattern in PLACES for path in ROOT.glob(pattern) if path.is_file()}
    names = sorted(path.relative_to(ROOT).as_posix() for path in paths)
    return [name for name in names if not name.startswith(VENDORED)]


@cache
def findings() -> list[Finding]:
    """Every listed word of every file."""
    return [
        finding
        for place in places()
        for finding in found_in(place, (ROOT / place).read_text(encoding="utf-8"))
    ]


def test_no_file_has_a_word_that_nobody_writes() -> None:
    left = [
        str(finding)
        for finding in findings()
        if not any(is_excepted(finding, exception) for exception in EXCEPTIONS)
    ]
    assert left == []


def test_every_exception_is_needed_and_has_a_reason() -> None:
    found = findings()
    for exception in EXCEPTIONS:
        assert exception.reason
        assert any(is_excepted(finding, exception) for finding in found), exception


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("Convert it anew.", "again"),
        ("A GPU that is lost is stood in for by the CPU", "takes over"),
        ("keep: At most so many; None for all.", "the number"),
        ("Print so many of the best.", "the number"),
        ("Machines wander, so ratios count", "drift"),
        ("Whoever waits for another's", "the actor's name"),
        ("servers beside servers", "compared with"),
        ("not kept, for want\n# of room", "for lack of"),
    ],
)
def test_a_listed_word_is_found_with_its_line(line: str, instead: str) -> None:
    found = list(found_in("page.md", f"A sentence.\n{line}\n"))
    assert found
    assert all(str(finding).startswith("page.md:2: ") for finding in found)
    assert any(instead in str(finding) for finding in found)


@pytest.mark.parametrize("line", ["besides the query", "so many that it fails", "a kind machine"])
def test_other_words_are_left_alone(line: str) -> None:
    assert list(found_in("page.md", line)) == []


def test_the_pages_and_the_source_are_searched() -> None:
    searched = places()
    assert {"README.md", "docs/why.md", "src/tamis/service.py", "Makefile"} <= set(searched)
    assert len(searched) > 200
