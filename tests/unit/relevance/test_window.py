import numpy as np
import pytest

from tamis.relevance.signals import read
from tamis.relevance.window import SIGNALS, Window
from tests.rankings import ranking


def window_of(*logits: list[float], size: int = 100) -> Window:
    window = Window(size, threshold=0.5)
    for one in logits:
        reading = read(ranking(one))
        assert reading is not None
        window.add(reading)
    return window


def test_an_empty_window_has_nothing_in_it() -> None:
    found = window_of().snapshot("m")
    assert found.n_requests == 0
    assert sum(found.all.counts) == 0
    assert (found.top.n_effective, found.all.n_effective) == (0, 0)
    assert set(found.signals) == set(SIGNALS)
    assert all(moments.n == 0 for moments in found.signals.values())


def test_the_oldest_leaves_when_a_new_one_comes() -> None:
    window = window_of([9.0, 0.0], [1.0, 0.0], [0.0, 1.0], size=2)
    found = window.snapshot("m")
    assert window.n_seen == 3
    assert found.n_requests == 2
    assert sum(found.top.counts) == 2
    assert found.signals["retention"].mean == 0.5
    assert np.flatnonzero(found.top.counts).tolist() == [68]


def test_a_signal_is_the_mean_of_the_requests_that_have_it() -> None:
    found = window_of([1.0], [-1.0, -2.0], [1.0, 0.0]).snapshot("m").signals
    assert (found["retention"].n, found["retention"].mean) == (2, 1.0)
    assert (found["nothing_relevant"].n, found["nothing_relevant"].mean) == (
        3,
        pytest.approx(1 / 3),
    )
    assert found["top5_overlap"].n == 0
    assert found["tokens"].mean == 10


def test_a_request_with_many_documents_is_one_request_all_the_same() -> None:
    even = window_of(*([[0.0] * 10] * 50)).snapshot("m")
    assert even.all.n_effective == pytest.approx(50)
    uneven = window_of([0.0] * 1000, *([[0.0] * 10] * 49)).snapshot("m")
    assert uneven.all.n_effective < 3
    assert uneven.top.n_effective == 50
