"""Replies of Redis, whole, in pieces, and beyond what a reply may be."""

import random
from typing import Any

import hiredis
import pytest
from redis import exceptions

from tamis.cache.redis_replies import (
    MOST_BULK_BYTES,
    MOST_DEPTH,
    MOST_ELEMENTS,
    MOST_LINE_BYTES,
    ErrorLine,
    Reply,
)

WHOLE = [
    b"+OK\r\n",
    b":42\r\n",
    b":-1\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"$0\r\n\r\n",
    b"$5\r\na\r\nbc\r\n",
    b"*0\r\n",
    b"*3\r\n$1\r\na\r\n$-1\r\n:7\r\n",
    b"*2\r\n*2\r\n+x\r\n*0\r\n*-1\r\n",
    b"*1\r\n*1\r\n*1\r\n$2\r\n\r\n\r\n",
]


def plain(value: object) -> object:
    """A value as hiredis has it."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return ("error", value.text) if isinstance(value, ErrorLine) else value


def by_hiredis(data: bytes) -> Any:
    reader = hiredis.Reader(replyError=lambda text: ("error", text))
    reader.feed(data)
    return reader.gets()


def fed(data: bytes, cuts: list[int]) -> tuple[Reply, bytes]:
    """A reply whose bytes come in pieces, and the bytes not read yet."""
    reply, waiting, at = Reply(), b"", 0
    for cut in [*sorted(cuts), len(data)]:
        waiting += data[at:cut]
        at = cut
        if not reply.is_whole:
            waiting = waiting[reply.take(waiting) :]
    return reply, waiting


@pytest.mark.parametrize("data", [*WHOLE, b"-ERR no\r\n", b"*1\r\n-MOVED 1 a:1\r\n"])
def test_a_reply_is_what_hiredis_reads_however_it_is_cut(data: bytes) -> None:
    expected = by_hiredis(data)
    chance = random.Random(1)
    for n_cuts in (0, 1, 2, len(data)):
        cuts = [chance.randrange(len(data) + 1) for _ in range(n_cuts)]
        reply, rest = fed(data + b"+next\r\n", cuts)
        assert reply.is_whole
        assert plain(reply.value) == expected
        assert rest == b"+next\r\n"


@pytest.mark.parametrize("data", WHOLE)
def test_a_reply_is_not_whole_before_its_last_byte(data: bytes) -> None:
    for end in range(len(data)):
        reply = Reply()
        reply.take(data[:end])
        assert not reply.is_whole


@pytest.mark.parametrize(
    "data",
    [
        b"*3000000\r\n",
        b"*99999999999999999999\r\n",
        b"*2\r\n*%d\r\n" % (MOST_ELEMENTS - 1),
        b"*50000\r\n" + b"*10\r\n" * 10_000,
        b"*1\r\n" * (MOST_DEPTH + 1),
        b"$%d\r\n" % (MOST_BULK_BYTES + 1),
        b"$9999999\r\n",
        b"$99999999999\r\n",
        b"+" + b"x" * MOST_LINE_BYTES,
        b"-" + b"x" * MOST_LINE_BYTES + b"x\r\n",
        b":" + b"9" * 5000 + b"\r\n",
        b"$2\r\nabc\r\n",
        b"$-2\r\n",
        b"*-2\r\n",
        b"*\r\n",
        b"*+3\r\n",
        b"* 3\r\n",
        b"*1_0\r\n",
        b":1.5\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b">2\r\n+message\r\n+x\r\n",
        b"_\r\n",
        b"\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_what_no_reply_may_be_is_refused_before_it_is_kept(data: bytes) -> None:
    reply = Reply()
    with pytest.raises(exceptions.InvalidResponse):
        reply.take(data)
