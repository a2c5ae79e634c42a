"""What the attackers send."""

import json
import os
import random
import zlib
from functools import cache

from tamis.bench.workloads import long

EIGHT_MIB = 2**23
"""As many bytes as a body may have, by default."""
SMALL = b'{"query":"q","documents":["a"]}'
CONTENT_TYPES = (
    b"application/json" + b";" * 32_000,
    b'application/json; a="' + b'\\";' * 10_500,
    b'application/json; a="' + b";" * 32_000,
    b"application/json" + b";a=b" * 7_900,
    b"application/json" + b"".join(b";a*%d=b" % number for number in range(3_300)),
    b"application/json; charset*=punycode''" + b"a" * 31_000,
    b"application/json; charset*=zlib''utf-8",
)
_HEAD = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CHUNK = b"%x\r\n%s\r\n" % (len(SMALL), SMALL)
_N = len(SMALL)
FRAMINGS = (
    (b"Content-Length: %d, %d\r\n" % (_N, _N), SMALL),
    (b"Content-Length: %d\r\nContent-Length: 5\r\n" % _N, SMALL),
    (b"Content-Length: +%d\r\n" % _N, SMALL),
    (b"Content-Length: %d\r\n" % _N + _CHUNKED, _CHUNK + b"0\r\n\r\n"),
    (b"Transfer-Encoding: gzip, chunked\r\n", _CHUNK + b"0\r\n\r\n"),
    (b"Transfer-Encoding : chunked\r\n", _CHUNK + b"0\r\n\r\n"),
    (_CHUNKED, b"%x;a\rb\r\n%s\r\n0\r\n\r\n" % (_N, SMALL)),
    (_CHUNKED, b"%x;a\nb\r\n%s\r\n0\r\n\r\n" % (_N, SMALL)),
    (_CHUNKED, b"%x\n%s\r\n0\r\n\r\n" % (_N, SMALL)),
    (_CHUNKED, b"%x\r\n%s\n0\r\n\r\n" % (_N, SMALL)),
    (_CHUNKED, b"0x%x\r\n%s\r\n0\r\n\r\n" % (_N, SMALL)),
    (_CHUNKED, _CHUNK + b"0\r\nx: y\n\n"),
    (_CHUNKED, _CHUNK + b"0\r\nx: y\r\n\n"),
)
"""Headers and bodies that two servers may cut in different places."""


def gzipped(data: bytes, *, level: int = 9, ends: bool = True) -> bytes:
    """A gzip stream, or all of it but its end."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush(zlib.Z_FINISH if ends else zlib.Z_SYNC_FLUSH)


def unfinished() -> bytes:
    """Unpacks to one byte less than a body may have, and waits for more."""
    start = b'{"query":"q","documents":["a"],"x":"' + os.urandom(EIGHT_MIB // 16).hex().encode()
    return gzipped(start.ljust(EIGHT_MIB, b"x")[: EIGHT_MIB - 1], level=1, ends=False)


def tiny_strings(number: int) -> bytes:
    """8 MiB of strings of one letter in a field that nobody knows, packed."""
    start = b'{"query":"hold %d","documents":["a%d"],"x":[' % (number, number)
    return gzipped(start + _letters() + b"]}", level=1)


@cache
def _letters() -> bytes:
    symbols = [f'"{chr(code)}",'.encode() for code in range(0x100, 0x17F)]
    return b"".join(random.Random(3).choices(symbols, k=(EIGHT_MIB - 200) // 5))[:-1]


def large_answer() -> bytes:
    """A packed request whose answer has 8 MiB: the document comes back untouched."""
    blob = (os.urandom(2**19).hex().encode() + b"x" * EIGHT_MIB)[: EIGHT_MIB - 100]
    return gzipped(b'{"query":"q","documents":[{"text":"a","x":"' + blob + b'"}]}')


def front_packs_well() -> bytes:
    """Packed less than 20 times as a whole, and far more at its beginning."""
    noise = os.urandom(60_000).hex().encode()
    return gzipped(b'{"query":"q","documents":["a"],"x":"' + b"y" * 400_000 + noise + b'"}')


def rerank(number: int, n_documents: int, **fields: object) -> bytes:
    """A request of documents of 400 to 490 tokens; different numbers, different pairs."""
    documents = long_documents()[:n_documents]
    body = {"query": f"query {number}", "documents": documents, "return_documents": False}
    return json.dumps(body | fields).encode()


def tiny_pairs(number: int) -> bytes:
    """1,000 documents of a word, which wait as long as they may."""
    documents = [f"{number * 1000 + index:x}" for index in range(1000)]
    body = {"query": "fill", "documents": documents, "return_documents": False}
    return json.dumps(body | {"partial": True, "timeout_ms": 110_000}).encode()


def long_texts() -> bytes:
    """2 MB of text for the tokenizer, and hardly any time."""
    text = " ".join(long_documents()[:8])[:20_000]
    documents = [f"{number} {text}" for number in range(100)]
    body = {"query": "q", "documents": documents, "return_documents": False, "timeout_ms": 100}
    return json.dumps(body).encode()


@cache
def long_documents() -> tuple[str, ...]:
    """Documents of 400 to 490 tokens."""
    return long(200, seed=11).documents
