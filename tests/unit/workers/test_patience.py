import threading
from collections.abc import Sequence

import pytest

from tamis.engine.backend import SupervisedBackend
from tamis.engine.pairs import EncodedPair
from tamis.testing import FakeBackend, WordTokenizer
from tamis.workers.patience import Patience, WatchedBackend

PAIRS = WordTokenizer().encode("q", ["a", "b"])
N_TOKENS = sum(pair.n_tokens for pair in PAIRS)


def test_the_floor_holds_while_batches_are_quick() -> None:
    patience = Patience(10.0)
    patience.observe(0.1)
    assert patience.limit(1000) == 10.0
    assert not patience.is_over(10.0, 1000)
    assert patience.is_over(10.1, 1000)


def test_slow_batches_get_five_times_their_p99() -> None:
    patience = Patience(10.0)
    for _ in range(197):
        patience.observe(1.0)
    for seconds in (4.0, 4.0, 60.0):  # the slowest of two hundred is beyond the p99
        patience.observe(seconds)
    assert patience.limit(1000) == 20.0
    assert not patience.is_over(19.0, 1000)
    assert patience.is_over(20.1, 1000)


def test_the_first_batch_of_a_slow_machine_gets_what_the_warm_up_says() -> None:
    patience = Patience(10.0, seconds_per_token=0.01)
    assert patience.limit(2000) == pytest.approx(100.0)
    assert patience.limit(20) == 10.0


def test_what_was_long_ago_is_forgotten() -> None:
    patience = Patience(1.0)
    patience.observe(100.0)
    for _ in range(500):
        patience.observe(1.0)
    assert patience.limit(1) == 5.0


def test_a_backend_that_is_watched_scores_as_it_does_and_closes() -> None:
    inner = FakeBackend()
    watched = WatchedBackend(inner, Patience(10.0))
    assert watched.forward(PAIRS).tolist() == FakeBackend().forward(PAIRS).tolist()
    assert watched.fault is None
    assert isinstance(watched, SupervisedBackend)
    watched.close()
    assert inner.closed


def test_a_backend_that_hangs_says_so_until_it_goes_on() -> None:
    reached, opened = threading.Event(), threading.Event()

    def hold(_: Sequence[EncodedPair]) -> None:
        reached.set()
        assert opened.wait(30)

    watched = WatchedBackend(FakeBackend(hold), Patience(0.0))
    thread = threading.Thread(target=watched.forward, args=(PAIRS,))
    thread.start()
    assert reached.wait(30)
    fault = watched.fault
    assert fault is not None
    assert fault.is_lasting
    assert "no progress" in fault.reason
    opened.set()
    thread.join()
    assert watched.fault is None


def test_a_batch_that_raises_is_no_stall() -> None:
    def fail(_: Sequence[EncodedPair]) -> None:
        raise RuntimeError

    watched = WatchedBackend(FakeBackend(fail), Patience(0.0))
    with pytest.raises(RuntimeError):
        watched.forward(PAIRS)
    assert watched.fault is None
