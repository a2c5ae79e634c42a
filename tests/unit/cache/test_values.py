import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.cache.values import ScoreCodec, decode_many
from tamis.types import PairScore

CODEC = ScoreCodec(b"secret")
KEY, OTHER = b"k" * 48, b"o" * 48
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


def encoded(score: PairScore, key: bytes = KEY) -> bytes:
    value = CODEC.encode(key, score)
    assert value is not None
    return value


@given(finite, st.integers(0, 2**30 - 1), st.booleans(), st.booleans())
def test_a_score_comes_back_to_the_last_digit(
    logit: float, n_tokens: int, cut: bool, query_cut: bool
) -> None:
    back = CODEC.decode(KEY, encoded(PairScore(logit, n_tokens, cut, query_cut)))

    assert back is not None
    assert np.float32(back.logit).tobytes() == np.float32(logit).tobytes()
    assert (back.n_tokens, back.truncated, back.query_truncated) == (n_tokens, cut, query_cut)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_kept(logit: float) -> None:
    assert CODEC.encode(KEY, PairScore(logit, 3, truncated=False)) is None


@given(st.integers(0, 15), st.integers(1, 255))
def test_a_value_with_any_byte_changed_is_no_value(place: int, change: int) -> None:
    value = bytearray(encoded(PairScore(1.5, 7, truncated=False)))
    value[place] ^= change

    assert CODEC.decode(KEY, bytes(value)) is None


def test_a_value_of_another_key_secret_or_length_is_no_value() -> None:
    value = encoded(PairScore(1.5, 7, truncated=False))

    assert CODEC.decode(KEY, value) is not None
    assert CODEC.decode(OTHER, value) is None
    assert ScoreCodec(b"other").decode(KEY, value) is None
    assert [CODEC.decode(KEY, bad) for bad in (b"", value[:-1], value + b"\0", b"x" * 10**6)] == (
        [None] * 4
    )


def test_many_are_read_at_once_and_the_spoilt_ones_counted() -> None:
    score = PairScore(1.5, 7, truncated=True)

    scores, n_corrupt = decode_many(
        CODEC, [KEY, OTHER, KEY], [encoded(score), encoded(score), None]
    )

    assert scores == [score, None, None]
    assert n_corrupt == 1
