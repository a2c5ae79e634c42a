import numpy as np

from tamis.engine.collate import collate
from tamis.engine.pairs import EncodedPair, TokenSequence


def sequence(*ids: int, type_id: int = 0) -> TokenSequence:
    """A run of tokens, all of one type."""
    token_ids = np.array(ids, dtype=np.int32)
    return TokenSequence(token_ids, np.full_like(token_ids, type_id))


def pair(*sequences: TokenSequence) -> EncodedPair:
    """A pair that lost no text."""
    return EncodedPair(sequences, truncated=False)


def test_sequences_are_laid_end_to_end_without_padding() -> None:
    batch = collate([pair(sequence(1, 2, 3)), pair(sequence(4, type_id=1)), pair(sequence(5, 6))])

    assert batch.token_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert batch.type_ids.tolist() == [0, 0, 0, 1, 0, 0]
    assert batch.cu_seqlens.tolist() == [0, 3, 4, 6]
    assert batch.lengths.tolist() == [3, 1, 2]
    assert batch.pair_sequences.tolist() == [[0], [1], [2]]


def test_a_sequence_that_several_pairs_share_stands_in_the_batch_once() -> None:
    query, other = sequence(1, 2), sequence(1, 2)
    documents = [sequence(3), sequence(4), sequence(5)]

    batch = collate(
        [pair(query, documents[0]), pair(query, documents[1]), pair(other, documents[2])]
    )

    assert batch.token_ids.tolist() == [1, 2, 3, 4, 1, 2, 5]
    assert batch.pair_sequences.tolist() == [[0, 1], [0, 2], [3, 4]]


def test_a_pair_counts_the_tokens_of_all_its_sequences() -> None:
    assert pair(sequence(1, 2), sequence(3, 4, 5)).n_tokens == 5
