from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tamis.engine.buckets import (
    MOST_PADDING,
    padding_in_buckets,
    places_of_sequences,
    places_of_tokens,
    sort_into_buckets,
)

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=60)


def edges(lengths: list[int]) -> NDArray[np.int32]:
    """Where sequences of these lengths start and end."""
    return np.cumsum([0, *lengths], dtype=np.int32)


@given(LENGTHS)
def test_each_token_stands_in_one_place_and_in_its_own_sequences_row(lengths: list[int]) -> None:
    buckets = sort_into_buckets(edges(lengths))
    owners = np.repeat(np.arange(len(lengths)), lengths)

    for bucket in buckets:
        assert (owners[bucket.tokens] == bucket.sequences[:, None]).all()
    tokens = np.concatenate([bucket.tokens[bucket.filled] for bucket in buckets])
    assert sorted(tokens) == list(range(sum(lengths)))


@given(LENGTHS)
def test_tokens_and_sequences_are_found_again(lengths: list[int]) -> None:
    buckets = sort_into_buckets(edges(lengths))

    places = np.concatenate([bucket.tokens.ravel() for bucket in buckets])
    rows = np.concatenate([bucket.sequences for bucket in buckets])

    assert places[places_of_tokens(buckets)].tolist() == list(range(sum(lengths)))
    assert rows[places_of_sequences(buckets)].tolist() == list(range(len(lengths)))


@given(LENGTHS)
def test_no_bucket_is_padded_by_more_than_its_share(lengths: list[int]) -> None:
    for bucket in sort_into_buckets(edges(lengths)):
        assert 1 - bucket.filled.mean() <= MOST_PADDING + 1e-12


@given(LENGTHS)
def test_no_two_neighbours_could_have_been_one_bucket(lengths: list[int]) -> None:
    buckets = sort_into_buckets(edges(lengths))
    for first, second in pairwise(buckets):
        longest_next = int(second.filled[0].sum())
        places = (len(first.sequences) + 1) * first.filled.shape[1]
        assert 1 - (first.filled.sum() + longest_next) / places > MOST_PADDING


def test_without_padding_equal_lengths_alone_share_a_bucket() -> None:
    buckets = sort_into_buckets(edges([7, 9, 7, 8, 9]), most_padding=0)

    assert [bucket.sequences.tolist() for bucket in buckets] == [[1, 4], [3], [0, 2]]
    assert all(bucket.filled.all() for bucket in buckets)


@given(LENGTHS)
def test_padding_is_counted_as_buckets_have_it(lengths: list[int]) -> None:
    buckets = sort_into_buckets(edges(lengths))
    n_padding = sum(int((~bucket.filled).sum()) for bucket in buckets)
    assert padding_in_buckets(np.array(lengths, dtype=np.int32)) == n_padding
