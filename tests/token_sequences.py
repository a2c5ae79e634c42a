"""Encoded pairs as plain lists, to compare them."""

from collections.abc import Iterable

from tamis.engine.pairs import EncodedPair, TokenSequence


def token_ids(sequences: Iterable[TokenSequence]) -> list[list[int]]:
    """The ids of some sequences."""
    return [sequence.token_ids.tolist() for sequence in sequences]


def single(pair: EncodedPair) -> tuple[list[int], list[int]]:
    """Ids and types of a pair that is read together."""
    (sequence,) = pair.sequences
    return sequence.token_ids.tolist(), sequence.type_ids.tolist()
