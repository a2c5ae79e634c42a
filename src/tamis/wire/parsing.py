"""A request's bytes to a JSON object, strictly and within bounds."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tamis.errors import MalformedBodyError
from tamis.wire.dialect import RawBody

MAX_DEPTH = 16
"""Levels of JSON arrays and objects."""
MAX_CONTAINERS = 100_000
"""JSON arrays and objects that a body may have."""

_LONE_SURROGATE = re.compile(
    rb"(?<!\\)(?:\\\\)*(?P<half>\\u[dD]"
    rb"(?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2}))"
    rb"|(?P<raw>\xed[\xa0-\xbf])"
)
"""Half of a pair in JSON's escapes without its other half, or encoded as if it were a character."""
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS_AND_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))
_BLOCK = 2**16  # bytes


def parse_object(
    data: bytes, *, max_depth: int = MAX_DEPTH, max_containers: int = MAX_CONTAINERS
) -> RawBody:
    """A JSON object from a request's bytes, read strictly.

    Of a key that is there twice the last value counts. No text of the body is in an error.

    Raises:
        MalformedBodyError: it is not UTF-8, not JSON, too deep, or not an object.
    """
    brackets = _brackets(data, max_depth, max_containers)
    if len(brackets) > 2 * max_containers:
        raise MalformedBodyError(f"the body has more than {max_containers:,} arrays and objects")
    try:
        body: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        lone = _LONE_SURROGATE.search(data)
        if lone is not None:
            at = lone.start(lone.lastgroup or 0)
            raise MalformedBodyError(
                f"the body has a lone surrogate, half of a character, at byte {at:,}; "
                "send the whole character or none of it"
            ) from None
        raise MalformedBodyError(f"the body is not valid JSON in UTF-8: {error}") from None
    if not isinstance(body, dict):
        raise MalformedBodyError("the body must be a JSON object")
    if _is_deeper(brackets, max_depth):
        raise MalformedBodyError(f"the body has more than {max_depth} levels")
    return body


def _brackets(data: bytes, max_depth: int, max_containers: int) -> bytes:
    """The brackets of a JSON text that are outside of its strings, braces as square ones.

    A few fast passes over the bytes; of few brackets, which cannot be too deep, there are none, and
    of too many not all.
    """
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return b""
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = unescaped.translate(_BRACKETS, _ALL_BUT_BRACKETS_AND_QUOTES).replace(b'""', b"")
    found = bytearray()
    for outside in _outside_of_strings(marks):
        found += outside
        if len(found) > 2 * max_containers:
            break
    return bytes(found)


def _outside_of_strings(marks: bytes) -> Iterator[bytes]:
    """What is not between quotes, a block at a time, so that other threads run in between."""
    inside = 0
    for start in range(0, len(marks), _BLOCK):
        parts = marks[start : start + _BLOCK].split(b'"')
        yield b"".join(parts[inside::2])
        inside = (inside + len(parts) - 1) % 2


def _is_deeper(brackets: bytes, max_depth: int) -> bool:
    """Whether brackets have more levels than that; each pass takes away the innermost."""
    for _ in range(max_depth):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)
