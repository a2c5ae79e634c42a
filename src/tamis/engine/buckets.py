"""Sequences of a packed batch sorted into buckets of like length, for attention with padding.

A kernel that wants a rectangle runs once a bucket; what it computes on padding is bounded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PADDING = 1 / 8
"""Of a bucket's places, at most this share is padding."""


@dataclass(frozen=True, slots=True, eq=False)
class Bucket:
    """Some sequences side by side, each filled up to the longest of them.

    Attributes:
        sequences: Which sequences of the batch they are, (n_rows,).
        tokens: The packed token at each place, (n_rows, longest). Padding holds a sequence's
            first token: any would do, since nothing attends to it.
        filled: Which places are no padding, (n_rows, longest).
    """

    sequences: NDArray[np.intp]
    tokens: NDArray[np.intp]
    filled: NDArray[np.bool_]


def sort_into_buckets(
    cu_seqlens: NDArray[np.int32], *, most_padding: float = MOST_PADDING
) -> list[Bucket]:
    """Few buckets that hold each sequence once, the longest first.

    Args:
        cu_seqlens: See `PackedBatch`.
        most_padding: See `MOST_PADDING`; with 0 only equal lengths share a bucket.
    """
    starts, lengths = cu_seqlens[:-1].astype(np.intp), np.diff(cu_seqlens)
    return [_fill(group, starts, lengths) for group in _groups(lengths, most_padding)]


def padding_in_buckets(lengths: NDArray[np.int32], *, most_padding: float = MOST_PADDING) -> int:
    """Places that are padding when sequences of such lengths, (n_sequences,), are so sorted."""
    groups = _groups(lengths, most_padding)
    return sum(len(group) * int(lengths[group[0]]) for group in groups) - int(lengths.sum())


def places_of_sequences(buckets: Sequence[Bucket]) -> NDArray[np.intp]:
    """Where each sequence stands among the rows of all buckets one after the other."""
    return np.argsort(np.concatenate([bucket.sequences for bucket in buckets]))


def places_of_tokens(buckets: Sequence[Bucket]) -> NDArray[np.intp]:
    """Where each packed token stands among the places of all buckets one after the other."""
    tokens = np.concatenate([bucket.tokens[bucket.filled] for bucket in buckets])
    filled = np.concatenate([bucket.filled.ravel() for bucket in buckets])
    return np.flatnonzero(filled)[np.argsort(tokens)]


def _groups(lengths: NDArray[np.int32], most_padding: float) -> Iterator[NDArray[np.intp]]:
    """Which sequences share a bucket, longest first."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        fit = _n_that_fit(lengths[order], most_padding)
        yield order[:fit]
        order = order[fit:]


def _n_that_fit(lengths: NDArray[np.int32], most_padding: float) -> int:
    """How many of the sequences, from the longest down, one bucket takes."""
    places = np.arange(1, len(lengths) + 1) * int(lengths[0])
    padding = places - np.cumsum(lengths)  # its share grows with each shorter sequence
    return int(np.count_nonzero(padding <= most_padding * places))


def _fill(
    sequences: NDArray[np.intp], starts: NDArray[np.intp], lengths: NDArray[np.int32]
) -> Bucket:
    places = np.arange(int(lengths[sequences[0]]))
    filled = places < lengths[sequences][:, None]
    return Bucket(sequences, starts[sequences][:, None] + np.where(filled, places, 0), filled)
