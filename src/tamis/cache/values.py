"""What is kept of a pair: its logit, raw, and a digest that ties it to its key."""

import hashlib
import math
import struct
from collections.abc import Sequence

from tamis.types import PairScore

_CONTENT = struct.Struct("<fI")
_TRUNCATED, _QUERY_TRUNCATED = 1 << 31, 1 << 30
_DIGEST_BYTES = 8
_MOST_TOKENS = _QUERY_TRUNCATED - 1


class ScoreCodec:
    """Values to bytes and back; a value under another key, or changed, comes back as None."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.sha256(secret).digest()

    def encode(self, key: bytes, score: PairScore) -> bytes | None:
        """The bytes of a score; None for one that must not be kept: its logit is not finite."""
        if not math.isfinite(score.logit) or score.n_tokens > _MOST_TOKENS:
            return None
        flags = _TRUNCATED * score.truncated | _QUERY_TRUNCATED * score.query_truncated
        content = _CONTENT.pack(score.logit, score.n_tokens | flags)
        return content + self._digest(key, content)

    def decode(self, key: bytes, value: bytes) -> PairScore | None:
        """The score that was kept under a key; None where the bytes are not one's."""
        content, digest = value[: _CONTENT.size], value[_CONTENT.size :]
        if len(content) != _CONTENT.size or digest != self._digest(key, content):
            return None
        logit, counted = _CONTENT.unpack(content)
        if not math.isfinite(logit):
            return None
        return PairScore(
            logit,
            counted & _MOST_TOKENS,
            truncated=bool(counted & _TRUNCATED),
            query_truncated=bool(counted & _QUERY_TRUNCATED),
        )

    def _digest(self, key: bytes, content: bytes) -> bytes:
        return hashlib.blake2b(key + content, key=self._secret, digest_size=_DIGEST_BYTES).digest()


def decode_many(
    codec: ScoreCodec, keys: Sequence[bytes], values: Sequence[bytes | None]
) -> tuple[list[PairScore | None], int]:
    """The scores of some keys, and how many values were not what had been kept."""
    scores = [
        None if value is None else codec.decode(key, value)
        for key, value in zip(keys, values, strict=True)
    ]
    n_there = sum(value is not None for value in values)
    return scores, n_there - sum(score is not None for score in scores)
