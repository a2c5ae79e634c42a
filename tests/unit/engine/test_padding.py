import numpy as np
import pytest

from tamis.engine.padding import Padding, count_places, padding_of
from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.testing import FakeBackend


def sequence(n_tokens: int) -> TokenSequence:
    ids = np.zeros(n_tokens, dtype=np.int32)
    return TokenSequence(ids, ids)


def pair(*lengths: int) -> EncodedPair:
    return EncodedPair(tuple(map(sequence, lengths)), truncated=False)


@pytest.mark.parametrize(
    ("padding", "n_padding"),
    [("none", 0), ("longest", 4 * 64 - 200), ("buckets", 2)],
)
def test_places_are_filled_up_to_what_attention_needs(padding: Padding, n_padding: int) -> None:
    pairs = [pair(64), pair(62), pair(64), pair(10)]
    assert count_places(pairs, padding) == (200, n_padding)


def test_equal_lengths_need_no_padding() -> None:
    pairs = [pair(30), pair(30), pair(30)]
    for padding in ("none", "longest", "buckets"):
        assert count_places(pairs, padding) == (90, 0)


def test_a_query_that_documents_share_is_computed_once() -> None:
    query = sequence(8)
    pairs = [EncodedPair((query, sequence(20)), truncated=False) for _ in range(3)]
    assert count_places(pairs, "none") == (8 + 3 * 20, 0)
    assert count_places(pairs, "longest") == (68, 12)


def test_a_backend_that_says_nothing_pads_nothing() -> None:
    assert padding_of(FakeBackend()) == "none"


def test_a_backend_is_believed() -> None:
    class Padded(FakeBackend):
        padding: Padding = "longest"

    assert padding_of(Padded()) == "longest"
