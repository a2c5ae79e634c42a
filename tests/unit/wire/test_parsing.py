import json
import re
import threading
import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.errors import MalformedBodyError
from tamis.wire import parsing
from tamis.wire.dialect import RawBody
from tamis.wire.parsing import parse_object


def built(body: RawBody) -> Any:
    """The values of a body's fields."""
    return msgspec.json.decode(msgspec.json.encode(body))


MALFORMED = {
    "empty": b"",
    "not JSON": b"query=q",
    "an array": b'["q"]',
    "a string": b'"q"',
    "null": b"null",
    "cut short": b'{"query": "q", "docu',
    "two values": b'{"query": "q"} {}',
    "byte order mark": b'\xef\xbb\xbf{"query": "q"}',
    "UTF-16": '{"query": "q"}'.encode("utf-16"),
    "UTF-32": '{"query": "q"}'.encode("utf-32"),
    "Latin-1": '{"query": "é"}'.encode("latin-1"),
    "surrogate in UTF-8": b'{"query": "\xed\xa0\x80"}',
    "lone surrogate escape": b'{"query": "\\ud800"}',
    "NaN literal": b'{"query": NaN}',
    "Infinity literal": b'{"query": -Infinity}',
    "float out of range": b'{"query": 1e999}',
    "integer of 5,000 digits": b'{"query": ' + b"9" * 5_000 + b"}",
    "2,000 levels": b'{"query": ' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    "200,000 levels": b'{"query": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "200,000 levels, never closed": b'{"query": ' + b'{"a":' * 200_000,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_a_json_object_in_utf8_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBodyError) as caught:
        parse_object(data)
    assert caught.value.__cause__ is None


def test_a_key_given_twice_counts_as_it_was_given_last() -> None:
    assert built(parse_object(b'{"query": "a", "query": "b"}')) == {"query": "b"}


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64, 2**16])
def test_brackets_count_outside_of_strings_alone(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(parsing, "_BLOCK", block)
    text = '[{\\"' * 20 + "]}" * 40
    body = {"query": text, "documents": [[text], [[text]], []] * 7}
    data = json.dumps(body).encode()
    n_containers = 2 + 4 * 7

    assert built(parse_object(data, max_containers=n_containers, max_depth=4)) == body
    with pytest.raises(MalformedBodyError, match="arrays and objects"):
        parse_object(data, max_containers=n_containers - 1, max_depth=4)
    with pytest.raises(MalformedBodyError, match="levels"):
        parse_object(data, max_containers=n_containers, max_depth=3)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999"])
def test_a_number_out_of_range_is_called_one(number: bytes) -> None:
    with pytest.raises(MalformedBodyError, match="a number that is too large"):
        parse_object(b'{"query": ' + number + b"}")


_LONE = re.compile(
    r"(?<!\\)(?:\\\\)*(?P<half>\\ud(?:[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\ud)[c-f]..))"
)
"""What is looked for, said plainly."""


@pytest.mark.parametrize("block", [1, 2, 7, 16, 2**16])
@given(st.lists(st.sampled_from(["\\", "\\ud83d", "\\ude00", "\\ud83d\\ude00", "a", "u"])))
def test_half_a_character_is_found_wherever_it_is(block: int, parts: list[str]) -> None:
    text = '{"query": "' + "".join(parts) + "\\q"
    lone = _LONE.search(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "_BLOCK", block)
        with pytest.raises(MalformedBodyError) as caught:
            parse_object(text.encode())
    found = re.search(r"lone surrogate.* at byte ([\d,]+)", str(caught.value))
    assert (found and found[1]) == (lone and str(lone.start("half")))


@pytest.mark.parametrize("block", [1, 5, 2**16])
def test_half_a_character_in_utf8_is_found_across_blocks(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "_BLOCK", block)
    with pytest.raises(MalformedBodyError, match=r"lone surrogate.* at byte 16;"):
        parse_object('{"query": "é€'.encode() + b'\xed\xa0\x80"}')


EIGHT_MIB = 8 * 2**20
LONG_AND_MALFORMED = {
    "plain": b"x",
    "backslashes": b"\\",
    "pairs": b"\\ud83d\\ude00",
    "escaped halves": b"\\\\ud83d",
    "twice escaped halves": b"\\\\\\\\ud83d",
    "Hangul": "\ud7ff".encode(),
}


@pytest.mark.parametrize("piece", LONG_AND_MALFORMED.values(), ids=LONG_AND_MALFORMED.keys())
def test_a_long_malformed_body_takes_little_memory_and_lets_other_threads_run(
    piece: bytes,
) -> None:
    data = b'{"a":"' + piece * (EIGHT_MIB // len(piece))
    longest, done = 0.0, threading.Event()

    def tick() -> None:
        nonlocal longest
        before = time.perf_counter()
        while not done.wait(0.001):
            now = time.perf_counter()
            longest, before = max(longest, now - before), now

    ticking = threading.Thread(target=tick)
    ticking.start()
    with pytest.raises(MalformedBodyError, match="not valid JSON"):
        parse_object(data)
    done.set()
    ticking.join()
    assert longest < 0.2  # it was 0.4 s and more
    tracemalloc.start()
    with pytest.raises(MalformedBodyError, match="not valid JSON"):
        parse_object(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * EIGHT_MIB
