"""Documents from files and pipes: one a line, JSONL or a JSON array."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, cast

from tamis.errors import InvalidFieldError, InvalidTextError, MissingFieldError
from tamis.types import Document, document_text, kind_of

STANDARD_INPUT = "-"
JSONL_SUFFIXES = (".jsonl", ".ndjson")
JSON_SUFFIX = ".json"


def read_documents(names: list[str]) -> list[Document]:
    """Documents of several files, in order; `-`, or no name at all, is standard input.

    A file named .jsonl or .ndjson, or whose first line is a JSON object with a `text`, is JSONL.
    A JSON array of strings and objects with a `text` holds a document in each. Any other file is
    plain text, unless it is named .json. Empty lines are left out.

    Raises:
        MissingFieldError: there is no document, or no file of that name.
        InvalidFieldError: a line of a JSONL file, or an item of an array, is not a document, or
            a .json file is neither.
        InvalidTextError: a file is not UTF-8, or a text is not valid Unicode.
    """
    if not names and sys.stdin.isatty():
        raise MissingFieldError("no documents: name a file, or pipe lines in")
    sources = names or [STANDARD_INPUT]
    documents = [document for name in sources for document in _parse(name, _read(name))]
    if not documents:
        raise MissingFieldError(f"no documents in {', '.join(sources)}: nothing but empty lines")
    return documents


def read_lines(name: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty."""
    return _lines(_read(name))


def _read(name: str) -> str:
    data = b""
    try:
        data = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise MissingFieldError(f"cannot read {name}: {error.strerror}") from error
    except ValueError as error:
        if not isinstance(error, UnicodeDecodeError):  # a NUL in the name
            raise MissingFieldError(f"cannot read {name!r}: {error}") from error
        line = data[: error.start].count(b"\n") + 1
        raise InvalidTextError(f"{name} is not UTF-8: byte {error.start}, line {line}") from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def _parse(name: str, text: str) -> Iterator[Document]:
    is_jsonl = name.lower().endswith(JSONL_SUFFIXES)
    is_json = name.lower().endswith(JSON_SUFFIX)
    if not is_jsonl and (is_json or text.lstrip().startswith("[")):
        array = _json_or_none(text)
        if isinstance(array, list) and (is_json or (array and all(map(_is_document, array)))):
            for number, item in enumerate(cast("list[object]", array), start=1):
                yield _document(f"{name} item {number}", item)
            return
    for position, (number, line) in enumerate(_lines(text)):
        if position == 0:
            is_jsonl = is_jsonl or _has_text(_json_or_none(line))
            if is_json and not is_jsonl:
                _refuse_json(name, text)
        yield _object(f"{name} line {number}", line) if is_jsonl else line


def _refuse_json(name: str, text: str) -> NoReturn:
    """Say why a .json file does not hold an array of documents.

    Raises:
        InvalidFieldError: always.
    """
    wanted = "a .json file must be an array of documents (or one object with a `text` a line)"
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidFieldError(f"{name} is nested too deeply; {wanted}") from None
    except ValueError as error:
        raise InvalidFieldError(f"{name} is not JSON: {error}; {wanted}") from error
    raise InvalidFieldError(f"{name} is {kind_of(found)}; {wanted}")


def _object(name: str, line: str) -> Document:
    parsed = _json_or_none(line)
    if not _has_text(parsed):
        raise InvalidFieldError(f"{name}: not a JSON object with a `text`")
    return _document(name, parsed)


def _document(name: str, parsed: object) -> Document:
    """What stands in JSON as a document.

    Raises:
        InvalidFieldError: it has no text.
        InvalidTextError: its text holds a lone surrogate.
    """
    document = cast("Document", parsed)
    text = document_text(document, 0, name=name)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"{name} is not valid Unicode: lone surrogate at character {error.start}"
        ) from error
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_document(parsed: object) -> bool:
    return isinstance(parsed, str) or _has_text(parsed)


def _has_text(parsed: object) -> bool:
    return isinstance(parsed, dict) and "text" in parsed


def _json_or_none(line: str) -> object:
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
