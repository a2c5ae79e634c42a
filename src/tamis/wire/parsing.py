"""A request's bytes to a JSON object, strictly and within bounds."""

import codecs
import re
from collections.abc import Iterator

import msgspec

from tamis.errors import MalformedBodyError
from tamis.wire.dialect import OUT_OF_RANGE, RawBody
from tamis.wire.fields import names_documents

MAX_DEPTH = 16
"""Levels of JSON arrays and objects."""
MAX_CONTAINERS = 100_000
"""JSON arrays and objects that a body may have, and keys of these objects."""

_HALF_ESCAPED = re.compile(
    rb"\\u(?<![^\\]\\\\u)[dD]"  # begins with its literal, which is what makes the search fast
    rb"(?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
"""Half of a pair in JSON's escapes without its other half; a backslash before may yet escape it."""
_HALF_RAW = re.compile(rb"\xed[\xa0-\xbf]")
"""Half of a pair that is encoded as if it were a character."""
_LONGEST_HALF = len(r"\ud800\udc")
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_BLOCK = 2**16  # bytes
_INNERMOST = re.compile(rb"\[,*\]")
_MANY_ITEMS = 10_000
"""Of an array; fewer are built before they are counted."""
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STARTS_OF_NUMBERS = tuple(b"%c" % byte for byte in b"-0123456789")


def parse_object(
    data: bytes | bytearray, *, max_depth: int = MAX_DEPTH, max_containers: int = MAX_CONTAINERS
) -> RawBody:
    """A JSON object from a request's bytes, read strictly; its values are not built yet.

    Of a key that is there twice the last value counts. No text of the body is in an error.

    Raises:
        MalformedBodyError: it is not UTF-8, not JSON, too deep or too long, or not an object.
    """
    brackets = _brackets(data, max_depth, max_containers)
    if len(brackets) > 2 * max_containers:
        raise MalformedBodyError(f"the body has more than {max_containers:,} arrays and objects")
    if _has_more_keys(data, max_containers):
        raise MalformedBodyError(f"the body has more than {max_containers:,} keys of objects")
    try:
        _require_utf8(data)
        body = _OBJECT.decode(data)
        for value in body.values():
            _require_value(value)
    except msgspec.ValidationError:
        raise MalformedBodyError("the body must be a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        at = _lone_surrogate(data)
        if at is not None:
            raise MalformedBodyError(
                f"the body has a lone surrogate, half of a character, at byte {at:,}; "
                "send the whole character or none of it"
            ) from None
        raise MalformedBodyError(f"the body is not valid JSON in UTF-8: {error}") from None
    if _is_deeper(brackets, max_depth):
        raise MalformedBodyError(f"the body has more than {max_depth} levels")
    return body


def count_documents(body: RawBody) -> int:
    """Documents in a body that has very many of them, counted before they are built; 0 of few."""
    return max((_n_items(body[name]) for name in body if names_documents(name)), default=0)


def _n_items(value: object) -> int:
    data = bytes(value) if isinstance(value, msgspec.Raw) else b""
    if data[:1] != b"[" or data.count(b",") < _MANY_ITEMS:
        return 0
    marks = b"".join(_outside_of_strings(_marks(data, b"[]{},"))).translate(_BRACKETS)[1:-1]
    while (flat := _INNERMOST.sub(b"", marks)) != marks:
        marks = flat
    return marks.count(b",") + 1


def _require_utf8(data: bytes | bytearray) -> None:
    """Look at every byte, also where values are skipped; other threads run in between.

    Raises:
        UnicodeDecodeError: it is something else.
    """
    if not data.isascii():
        decoder = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(data), _BLOCK):
            decoder.decode(data[start : start + _BLOCK])
        decoder.decode(b"", final=True)


def _lone_surrogate(data: bytes | bytearray) -> int | None:
    """Where the first half of a character is; other threads run between two blocks."""
    searched = [
        pattern
        for pattern, start in ((_HALF_ESCAPED, b"\\u"), (_HALF_RAW, b"\xed"))
        if start in data
    ]
    for start in range(0, len(data) if searched else 0, _BLOCK):
        end = start + _BLOCK
        found = (
            hit.start()
            for pattern in searched
            for hit in pattern.finditer(data, start, end + _LONGEST_HALF)
            if hit.start() < end and not _is_escaped(data, hit.start())
        )
        at = min(found, default=None)
        if at is not None:
            return at
    return None


def _is_escaped(data: bytes | bytearray, at: int) -> bool:
    """Whether an odd number of backslashes is before a place."""
    n_bytes = 64
    while True:
        before = data[max(0, at - n_bytes) : at]
        n_backslashes = len(before) - len(before.rstrip(b"\\"))
        if n_backslashes < n_bytes or n_bytes >= at:
            return n_backslashes % 2 == 1
        n_bytes *= 2


def _require_value(value: msgspec.Raw) -> None:
    """Refuse a number that is out of every range: those alone are not read where they are skipped.

    Raises:
        MalformedBodyError: it is one.
    """
    if bytes(memoryview(value)[:1]) in _STARTS_OF_NUMBERS:
        try:
            msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise MalformedBodyError(OUT_OF_RANGE) from None


def _has_more_keys(data: bytes | bytearray, most: int) -> bool:
    """Whether there are more keys than that in all objects together."""
    if data.count(b":") <= most:
        return False
    n_keys = 0
    for outside in _outside_of_strings(_marks(data, b":")):
        n_keys += len(outside)
        if n_keys > most:
            return True
    return False


def _marks(data: bytes | bytearray, characters: bytes) -> bytes:
    """Some characters of a JSON text, and the quotes that its strings are between."""
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    unwanted = bytes(set(range(256)) - set(characters) - set(b'"'))
    return bytes(unescaped.translate(None, unwanted).replace(b'""', b""))


def _brackets(data: bytes | bytearray, max_depth: int, max_containers: int) -> bytes:
    """The brackets of a JSON text that are outside of its strings, braces as square ones.

    A few fast passes over the bytes; of few brackets, which cannot be too deep, there are none, and
    of too many not all.
    """
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return b""
    marks = _marks(data, b"[]{}").translate(_BRACKETS)
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
