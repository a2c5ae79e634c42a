"""Doubles for tests of what stands on the engine: they need no model and answer at once."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from tamis.engine.pairs import EncodedPair, Logits, TokenIds, TokenSequence, require_uncut
from tamis.errors import InferenceError
from tamis.types import TruncationSide

N_WORD_IDS = 30_000


def fake_logit(pair: EncodedPair) -> float:
    """The logit `FakeBackend` gives: a fixed number between -8 and 8 for each run of tokens."""
    content = b"|".join(sequence.token_ids.tobytes() for sequence in pair.sequences)
    return zlib.crc32(content) / 2**32 * 16 - 8


class FakeBackend:
    """A backend whose logits depend on each pair's tokens and on nothing else.

    Args:
        before_forward: Called with the pairs of each batch before they are scored, in the
            thread that scores them: it may wait (for a `threading.Event`) or raise.

    Attributes:
        batches: The pairs of every batch that came, in their order, failed ones included.
    """

    def __init__(
        self, before_forward: Callable[[Sequence[EncodedPair]], object] | None = None
    ) -> None:
        self.batches: list[list[EncodedPair]] = []
        self.closed = False
        self._before_forward = before_forward

    def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
        """Return the logits of the pairs."""
        if self.closed:
            raise InferenceError("the backend is closed")
        self.batches.append(list(pairs))
        if self._before_forward is not None:
            self._before_forward(pairs)
        return np.array([fake_logit(pair) for pair in pairs], dtype=np.float32)

    def close(self) -> None:
        """Refuse further batches."""
        self.closed = True


class WordTokenizer:
    """A token for each word: `<s> query </s></s> document </s>` without a vocabulary.

    Args:
        max_length: Tokens a pair may have.
    """

    def __init__(self, *, max_length: int = 512) -> None:
        self._max_length = max_length

    def encode(
        self,
        query: str,
        documents: Sequence[str],
        *,
        truncate: bool = True,
        truncation_side: TruncationSide = "right",
        indices: Sequence[int] | None = None,
    ) -> list[EncodedPair]:
        """Count one token per word.

        Raises:
            TextTooLongError: `truncate` is False and a text does not fit.
        """
        query_ids = _word_ids(query)
        kept = query_ids[: self._max_length // 2]
        room = self._max_length - len(kept) - 4
        pairs: list[EncodedPair] = []
        for index, document in zip(indices or range(len(documents)), documents, strict=True):
            ids = _word_ids(document)
            start = max(0, len(ids) - room) if truncation_side == "left" else 0
            pair = EncodedPair(
                (_joined(kept, ids[start : start + room]),),
                truncated=len(ids) > room,
                query_truncated=len(query_ids) > len(kept),
            )
            if not truncate:
                require_uncut(pair, self._max_length, index)
            pairs.append(pair)
        return pairs


def _word_ids(text: str) -> TokenIds:
    ids = [3 + zlib.crc32(word.encode()) % N_WORD_IDS for word in text.split()]
    return np.array(ids, dtype=np.int32)


def _joined(query_ids: TokenIds, document_ids: TokenIds) -> TokenSequence:
    start, end = np.array([0], dtype=np.int32), np.array([2], dtype=np.int32)
    ids = np.concatenate([start, query_ids, end, end, document_ids, end])
    return TokenSequence(ids, np.zeros_like(ids))
