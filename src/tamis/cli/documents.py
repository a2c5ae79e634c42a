"""Documents from files and pipes: one a line, or JSONL."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from tamis.errors import InvalidFieldError, InvalidTextError, MissingFieldError
from tamis.types import Document, document_text

STANDARD_INPUT = "-"
JSONL_SUFFIXES = (".jsonl", ".ndjson")


def read_documents(names: list[str]) -> list[Document]:
    """Documents of several files, in order; `-`, or no name at all, is standard input.

    A file named .jsonl or .ndjson, or whose first line is a JSON object with a `text`, is JSONL;
    any other one is plain text. Empty lines are left out.

    Raises:
        MissingFieldError: there is no document, or no file of that name.
        InvalidFieldError: a line of a JSONL file is not an object with a `text`.
        InvalidTextError: a file is not UTF-8.
    """
    if not names and sys.stdin.isatty():
        raise MissingFieldError("no documents: name a file, or pipe lines in")
    documents = [
        document
        for name in names or [STANDARD_INPUT]
        for document in _parse(name, read_lines(name))
    ]
    if not documents:
        raise MissingFieldError("no documents: every line is empty")
    return documents


def read_lines(name: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty."""
    try:
        data = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise MissingFieldError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidTextError(f"{name} is not UTF-8: byte {error.start}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def _parse(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[Document]:
    is_jsonl = False
    for position, (number, line) in enumerate(lines):
        if position == 0:
            is_jsonl = name.endswith(JSONL_SUFFIXES) or _has_text(_json_or_none(line))
        yield _object(name, number, line) if is_jsonl else line


def _object(name: str, number: int, line: str) -> Document:
    parsed = _json_or_none(line)
    if not _has_text(parsed):
        raise InvalidFieldError(f"{name} line {number}: not a JSON object with a `text`")
    document = cast("dict[str, Any]", parsed)
    document_text(document, number)
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _has_text(parsed: object) -> bool:
    return isinstance(parsed, dict) and "text" in parsed


def _json_or_none(line: str) -> object:
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
