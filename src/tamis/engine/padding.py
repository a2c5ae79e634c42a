"""The padding that attention adds to a batch."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from tamis.engine.buckets import padding_in_buckets
from tamis.engine.pairs import EncodedPair, distinct_sequences

Padding = Literal["none", "longest", "buckets"]
"""To what attention fills sequences up: to nothing, to the batch's longest, to their bucket's."""


@runtime_checkable
class PaddingBackend(Protocol):
    """A backend that knows what its attention does; one that does not counts as `none`."""

    @property
    def padding(self) -> Padding:
        """What sequences of unlike lengths are filled up to."""
        ...


def padding_of(backend: object) -> Padding:
    """What a backend fills sequences up to, if it says so."""
    return backend.padding if isinstance(backend, PaddingBackend) else "none"


def count_places(pairs: Sequence[EncodedPair], padding: Padding) -> tuple[int, int]:
    """Tokens that the model computes for a batch, and padding that it adds to them.

    A query that documents share is computed once, so that these tokens may be fewer than the
    pairs' own.
    """
    sequences, _ = distinct_sequences(pairs)
    lengths = np.array([len(sequence.token_ids) for sequence in sequences], dtype=np.int32)
    n_tokens = int(lengths.sum())
    if padding == "longest":
        return n_tokens, len(lengths) * int(lengths.max()) - n_tokens
    return n_tokens, padding_in_buckets(lengths) if padding == "buckets" else 0
