"""What the tokenizer makes and the model reads."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tamis.errors import TextTooLongError
from tamis.types import PairScore, TruncationSide

Key = TypeVar("Key", bound=Hashable)

TokenIds = NDArray[np.int32]
Logits = NDArray[np.float32]
"""Raw model outputs, one a pair, (n_pairs,)."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One run of tokens that attend to each other.

    Attributes:
        token_ids: (n_tokens,).
        type_ids: Segment of each token (BERT's token types), (n_tokens,).
    """

    token_ids: TokenIds
    type_ids: TokenIds


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPair:
    """A query and a document, ready for the model.

    Attributes:
        sequences: One sequence where query and document are read together; two (query,
            document) where they are read apart. Pairs of one request share the query's.
        truncated: Whether text of the document was left out.
        query_truncated: Whether text of the query was.
    """

    sequences: tuple[TokenSequence, ...]
    truncated: bool
    query_truncated: bool = False

    @property
    def n_tokens(self) -> int:
        """Tokens of all its sequences."""
        return sum(len(sequence.token_ids) for sequence in self.sequences)


def logits_of(scores: Iterable[PairScore]) -> Logits:
    """The logit of each pair; NaN where there is none."""
    return np.array([score.logit for score in scores], dtype=np.float32)


def require_uncut(pair: EncodedPair, max_length: int, index: int) -> None:
    """Refuse a pair that was cut.

    Args:
        pair: As it was cut.
        max_length: Tokens that a pair may have.
        index: What the caller calls the document.

    Raises:
        TextTooLongError: the query was cut, or the document.
    """
    if pair.query_truncated:
        raise TextTooLongError(
            f"the query has more tokens than it may have, about half of {max_length}, and "
            "truncation is off; shorten the query or allow truncation"
        )
    if pair.truncated:
        raise TextTooLongError(
            f"query and document {index} have more than {max_length} tokens together, "
            "and truncation is off; shorten the text or allow truncation"
        )


def distinct_sequences(
    pairs: Sequence[EncodedPair],
) -> tuple[list[TokenSequence], list[list[int]]]:
    """The sequences of some pairs, each once, and which of them each pair has."""
    rows: dict[int, int] = {}
    sequences: list[TokenSequence] = []
    for pair in pairs:
        for sequence in pair.sequences:
            if rows.setdefault(id(sequence), len(sequences)) == len(sequences):
                sequences.append(sequence)
    return sequences, [[rows[id(sequence)] for sequence in pair.sequences] for pair in pairs]


def first_places(keys: Iterable[Key]) -> dict[Key, int]:
    """Each key once, in order, with its first place; equal pairs have equal keys."""
    places: dict[Key, int] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, place)
    return places


class PairEncoder(Protocol):
    """Turns texts into pairs; `engine/tokenization.py` has the real one."""

    def encode(
        self,
        query: str,
        documents: Sequence[str],
        *,
        truncate: bool = True,
        truncation_side: TruncationSide = "right",
        indices: Sequence[int] | None = None,
    ) -> list[EncodedPair]:
        """One pair for each document, in order; `indices` is what the caller calls each.

        Raises:
            InvalidTextError: a text is not valid Unicode.
            TextTooLongError: `truncate` is False and a text does not fit.
        """
        ...
