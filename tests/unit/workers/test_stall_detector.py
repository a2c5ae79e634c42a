import threading
from collections.abc import Sequence

import pytest

from tamis.engine.backend import SupervisedBackend
from tamis.engine.pairs import EncodedPair
from tamis.testing import FakeBackend, WordTokenizer
from tamis.workers.stall_detector import StallDetector, WatchedBackend

PAIRS = WordTokenizer().encode("q", ["a", "b"])
N_TOKENS = sum(pair.n_tokens for pair in PAIRS)


def test_the_floor_holds_while_batches_are_quick() -> None:
    detector = StallDetector(10.0)
    detector.observe(0.1)
    assert detector.limit_seconds(1000) == 10.0
    assert not detector.is_stalled(10.0, 1000)
    assert detector.is_stalled(10.1, 1000)


def test_slow_batches_get_five_times_their_p99() -> None:
    detector = StallDetector(10.0)
    for _ in range(197):
        detector.observe(1.0)
    for seconds in (4.0, 4.0, 60.0):  # the slowest of two hundred is beyond the p99
        detector.observe(seconds)
    assert detector.limit_seconds(1000) == 20.0
    assert not detector.is_stalled(19.0, 1000)
    assert detector.is_stalled(20.1, 1000)


def test_the_first_batch_of_a_slow_machine_gets_what_the_warm_up_says() -> None:
    detector = StallDetector(10.0, seconds_per_token=0.01)
    assert detector.limit_seconds(2000) == pytest.approx(100.0)
    assert detector.limit_seconds(20) == 10.0


def test_what_was_long_ago_is_forgotten() -> None:
    detector = StallDetector(1.0)
    detector.observe(100.0)
    for _ in range(500):
        detector.observe(1.0)
    assert detector.limit_seconds(1) == 5.0


def test_a_backend_that_is_watched_scores_as_it_does_and_closes() -> None:
    inner = FakeBackend()
    watched = WatchedBackend(inner, StallDetector(10.0))
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

    watched = WatchedBackend(FakeBackend(hold), StallDetector(0.0))
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

    watched = WatchedBackend(FakeBackend(fail), StallDetector(0.0))
    with pytest.raises(RuntimeError):
        watched.forward(PAIRS)
    assert watched.fault is None
