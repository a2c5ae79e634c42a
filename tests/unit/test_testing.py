import pytest

from tamis.engine.pairs import PairEncoder
from tamis.errors import InferenceError, TextTooLongError
from tamis.testing import FakeBackend, WordTokenizer
from tamis.types import TruncationSide
from tests.token_sequences import token_ids


def test_the_same_pair_has_the_same_logit_in_any_company() -> None:
    pairs = WordTokenizer().encode("a query", ["one", "two", "three"])

    alone = [FakeBackend().forward([pair])[0] for pair in pairs]

    assert FakeBackend().forward(pairs).tolist() == alone
    assert len(set(alone)) == 3


def test_what_came_before_a_failure_is_recorded() -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    backend, pairs = FakeBackend(fail), WordTokenizer().encode("q", ["d"])

    with pytest.raises(RuntimeError):
        backend.forward(pairs)
    assert backend.batches == [pairs]


def test_a_closed_backend_scores_nothing() -> None:
    backend = FakeBackend()
    backend.close()

    with pytest.raises(InferenceError):
        backend.forward(WordTokenizer().encode("q", ["d"]))


def test_words_become_tokens_in_the_usual_template() -> None:
    encoder: PairEncoder = WordTokenizer()
    (pair,) = encoder.encode("fine sieve", ["sieve"])

    ((start, fine, sieve, end, again, same, last),) = token_ids(pair.sequences)

    assert (start, end, again, last) == (0, 2, 2, 2)
    assert fine != sieve == same


@pytest.mark.parametrize(("side", "kept"), [("right", "one two"), ("left", "three four")])
def test_long_documents_are_cut_on_the_side_asked_for(side: TruncationSide, kept: str) -> None:
    encoder = WordTokenizer(max_length=7)

    (cut,) = encoder.encode("q", ["one two three four"], truncation_side=side)
    (whole,) = encoder.encode("q", [kept])

    assert token_ids(cut.sequences) == token_ids(whole.sequences)
    assert (cut.truncated, whole.truncated) == (True, False)
    with pytest.raises(TextTooLongError):
        encoder.encode("q", ["one two three four"], truncate=False)
