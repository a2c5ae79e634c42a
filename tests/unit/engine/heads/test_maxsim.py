import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tamis.engine.collate import PackedBatch, collate
from tamis.engine.heads.maxsim import MaxSimHead, read_unigram_scores
from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.engine.tokenization import read_definition
from tamis.errors import UnsupportedModelError

HIDDEN = 8
N_PIECES = 50
HEAD = MaxSimHead(
    token_weights=np.linspace(1, 9, N_PIECES, dtype=np.float32),
    importance=np.linspace(-1, 2, HIDDEN, dtype=np.float32),
    projection=np.random.default_rng(7).normal(size=(HIDDEN, HIDDEN)).astype(np.float32),
    query_skip=2,
    document_skip=3,
    suffix=1,
    pooled_weight=0.4,
    phrase_weight=0.25,
    scale=12.0,
    offset=0.3,
)


def sequence(n_tokens: int, seed: int) -> TokenSequence:
    """Some tokens drawn from the vocabulary."""
    ids = np.random.default_rng(seed).integers(0, N_PIECES, n_tokens).astype(np.int32)
    return TokenSequence(ids, np.zeros_like(ids))


def batch_of(queries: list[TokenSequence], documents: list[TokenSequence]) -> PackedBatch:
    """One pair for each document, with the query that stands at its place."""
    pairs = zip(queries, documents, strict=True)
    return collate([EncodedPair(both, truncated=False) for both in pairs])


def states_of(batch: PackedBatch, seed: int = 1) -> NDArray[np.float32]:
    """Random token states."""
    shape = (len(batch.token_ids), HIDDEN)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def formula(states: NDArray[np.float32], batch: PackedBatch, pair: int) -> float:
    """The head's formula for one pair, word for word and token by token."""
    query, document = (
        states[batch.cu_seqlens[row] : batch.cu_seqlens[row + 1]].astype(np.float64)
        for row in batch.pair_sequences[pair]
    )
    start = batch.cu_seqlens[batch.pair_sequences[pair][0]]
    weights = HEAD.token_weights[batch.token_ids[start : start + len(query)]]
    asked = query[HEAD.query_skip : -HEAD.suffix] @ HEAD.projection
    read = document[HEAD.document_skip : -HEAD.suffix] @ HEAD.projection
    total = best = 0.0
    for place, (token, weight) in enumerate(
        zip(asked, weights[HEAD.query_skip : -HEAD.suffix], strict=True)
    ):
        found = [_similarity(asked, read, place, n) for n in range(len(read))]
        share = float(weight * np.exp(HEAD.importance @ token / np.linalg.norm(token)))
        total += share
        best += share * max(found, default=0.0)
    maxsim = best / total if total else 0.0
    cosine = _cosine(query.mean(axis=0), document.mean(axis=0))
    return 12.0 * ((maxsim + 0.4 * cosine) / 1.4 - 0.3)


def _similarity(
    query: NDArray[np.float64], document: NDArray[np.float64], asked: int, read: int
) -> float:
    """Of one token of the query's text and one of the document's, and of those beside them."""
    total = _cosine(query[asked], document[read])
    for step in (-1, 1):
        if 0 <= asked + step < len(query) and 0 <= read + step < len(document):
            total += HEAD.phrase_weight * _cosine(query[asked + step], document[read + step])
        else:
            total += HEAD.phrase_weight * _cosine(query[asked], document[read])
    return total / (1 + 2 * HEAD.phrase_weight)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_several_queries_in_one_batch_each_meet_their_own_documents() -> None:
    first, second = sequence(7, 1), sequence(5, 2)
    documents = [sequence(length, length) for length in (9, 5, 12, 6, 20)]
    batch = batch_of([first, second, first, second, second], documents)
    states = states_of(batch)

    logits = HEAD.logits(states, batch)

    expected = [formula(states, batch, pair) for pair in range(5)]
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("n_query", "n_document"), [(3, 9), (7, 4), (3, 4)], ids=["query", "document", "both"]
)
def test_a_text_without_tokens_matches_nothing(n_query: int, n_document: int) -> None:
    filled = (sequence(6, 1), sequence(8, 2))
    empty = (sequence(n_query, 3), sequence(n_document, 4))
    batch = batch_of([filled[0], empty[0], filled[0]], [empty[1], empty[1], filled[1]])
    states = states_of(batch)

    logits = HEAD.logits(states, batch)

    expected = [formula(states, batch, pair) for pair in range(3)]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert HEAD.matches(states, batch, 1) is None


def test_the_order_of_a_batch_does_not_change_a_logit() -> None:
    query, documents = sequence(6, 1), [sequence(length, length) for length in (5, 9, 14)]
    forth = batch_of([query] * 3, documents)
    back = batch_of([query] * 3, documents[::-1])
    states = states_of(forth)
    parts = np.split(states, forth.cu_seqlens[1:-1])
    reversed_states = np.concatenate([parts[0], *parts[:0:-1]])

    there, here = HEAD.logits(states, forth), HEAD.logits(reversed_states, back)

    np.testing.assert_allclose(there, here[::-1], atol=1e-5)


def test_matches_name_the_nearest_token_its_cosine_and_its_share() -> None:
    query, document = sequence(5, 1), sequence(8, 2)
    batch = batch_of([query], [document])
    states = states_of(batch)
    states[5 + 3 + 2] = 4 * states[2]  # the third text token of the document is the first query's

    matches = replace(HEAD, phrase_weight=0.0).matches(states, batch, 0)

    assert matches is not None
    assert matches.nearest[0] == 2
    assert matches.similarities[0] == pytest.approx(1.0, abs=1e-6)
    assert matches.shares.sum() == pytest.approx(1.0, abs=1e-6)
    projected = states[2:4] @ HEAD.projection
    units = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    weights = HEAD.token_weights[query.token_ids[2:4]] * np.exp(units @ HEAD.importance)
    np.testing.assert_allclose(matches.shares, weights / weights.sum(), rtol=1e-6)


def test_matches_add_up_to_the_late_interaction_part_of_the_logit() -> None:
    batch = batch_of([sequence(9, 1)], [sequence(15, 2)])
    states = states_of(batch)
    without_cosine = replace(HEAD, pooled_weight=0.0, scale=1.0, offset=0.0)

    matches = without_cosine.matches(states, batch, 0)

    assert matches is not None
    assert float(matches.shares @ matches.similarities) == pytest.approx(
        float(without_cosine.logits(states, batch)[0]), abs=1e-6
    )


def test_tokens_in_the_query_s_order_count_more_than_the_same_ones_apart() -> None:
    query, document = sequence(6, 1), sequence(12, 2)  # three and eight tokens of text
    batch = batch_of([query, query], [document, sequence(12, 3)])
    states = np.eye(len(batch.token_ids), dtype=np.float32)
    text = states[2:5]
    states[6 + 3 + 2 : 6 + 3 + 5] = text  # in order, in the first document
    states[18 + 3 : 18 + 3 + 6 : 2] = text  # one apart, in the second

    head = replace(
        HEAD,
        importance=np.zeros(len(states), dtype=np.float32),
        projection=None,
        phrase_weight=0.5,
    )

    together, apart = (head.matches(states, batch, pair) for pair in range(2))

    assert together is not None
    assert apart is not None
    assert together.nearest.tolist() == [2, 3, 4]
    assert apart.nearest.tolist() == [0, 2, 4]
    np.testing.assert_allclose(together.similarities, [1, 1, 1])
    # the first of the second document has nothing before it: its own similarity stands there
    np.testing.assert_allclose(apart.similarities, [0.75, 0.5, 0.75])


def test_a_document_of_one_token_matches_as_it_does_without_phrases() -> None:
    batch = batch_of([sequence(9, 1)], [sequence(5, 3)])
    states = states_of(batch)

    alone = replace(HEAD, phrase_weight=0.0).logits(states, batch)

    np.testing.assert_allclose(HEAD.logits(states, batch), alone, atol=1e-6)


def test_a_document_s_length_changes_nothing_of_what_it_matches() -> None:
    """The same best tokens, and more or fewer others that match nothing: the same logit."""
    query, short, long = sequence(6, 1), sequence(3 + 5 + 1, 2), sequence(3 + 60 + 1, 3)
    batch = batch_of([query, query], [short, long])
    n_tokens = len(batch.token_ids)
    states = np.eye(n_tokens, dtype=np.float32)
    text = states[2:5]  # of the query
    states[6 + 3 + 1 : 6 + 3 + 4] = text
    states[6 + 9 + 3 + 30 : 6 + 9 + 3 + 33] = text
    head = replace(
        HEAD,
        importance=np.zeros(n_tokens, dtype=np.float32),
        projection=None,
        pooled_weight=0.0,
    )

    logits = head.logits(states, batch)

    assert logits[0] == pytest.approx(logits[1], abs=1e-6)


def test_a_query_of_one_token_has_no_phrase() -> None:
    batch = batch_of([sequence(4, 1)] * 2, [sequence(9, 2), sequence(5, 3)])
    states = states_of(batch)

    alone = replace(HEAD, phrase_weight=0.0).logits(states, batch)

    np.testing.assert_allclose(HEAD.logits(states, batch), alone, atol=1e-6)


def test_the_head_reads_every_token() -> None:
    assert HEAD.reads_tokens


_OTHER_THREADS = """
import time
from dataclasses import replace

import numpy as np

from tests.unit.engine.heads.test_maxsim import HEAD, batch_of, sequence

chance = np.random.default_rng(2)
head = replace(
    HEAD,
    importance=chance.normal(size=384).astype(np.float32),
    projection=chance.normal(size=(384, 384)).astype(np.float32),
)
batch = batch_of([sequence(60, 1)] * 40, [sequence(200, 2 + n) for n in range(40)])
states = chance.normal(size=(len(batch.token_ids), 384)).astype(np.float32)
for _ in range(8):
    before = time.process_time() - time.thread_time()
    head.logits(states, batch)
    head.matches(states, batch, 0)
    time.sleep(0.02)  # in which threads that were woken would wait actively
    print(time.process_time() - time.thread_time() - before)
"""


def test_late_interaction_is_computed_in_the_caller_s_thread_alone() -> None:
    # A process of its own: threads that other tests left would count.
    command = [sys.executable, "-c", _OTHER_THREADS]
    root = Path(__file__).parents[4]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout

    seconds = [float(line) for line in printed.split()]

    assert min(seconds) < 0.002


def test_without_a_projection_states_are_matched_as_they_are() -> None:
    batch = batch_of([sequence(9, 1)], [sequence(15, 2)])
    states = states_of(batch)

    plain = replace(HEAD, projection=None).logits(states, batch)
    same = replace(HEAD, projection=np.eye(HIDDEN, dtype=np.float32)).logits(states, batch)

    np.testing.assert_allclose(plain, same, atol=1e-6)
    assert abs(float(plain[0] - HEAD.logits(states, batch)[0])) > 0.01


def test_unigram_scores_count_special_pieces_as_the_rarest(tiny_model: Path) -> None:
    definition = read_definition(tiny_model)

    scores = read_unigram_scores(definition)

    vocabulary = definition["model"]["vocab"]
    special = {token["id"] for token in definition["added_tokens"]}
    assert scores[4] == pytest.approx(vocabulary[4][1])
    assert all(scores[index] == scores.min() for index in special)
    assert len(scores) == len(vocabulary)


def test_a_vocabulary_without_scores_has_no_unigram_scores(
    tiny_classifiers: dict[str, Path],
) -> None:
    with pytest.raises(UnsupportedModelError, match="Unigram"):
        read_unigram_scores(read_definition(tiny_classifiers["bert"]))
