import numpy as np

from tamis.bench.own_process import run_apart
from tamis.bench.peak_memory import peak_memory_bytes

NEEDED = 100_000_000


def need(n_bytes: int) -> tuple[int | None, int | None]:
    """The high-water mark before so many bytes were written, and after they were given back."""
    before = peak_memory_bytes()
    np.ones(n_bytes, dtype=np.uint8)
    return before, peak_memory_bytes()


def test_the_peak_keeps_what_was_needed_and_given_back() -> None:
    before, after = run_apart(need, NEEDED)
    assert before is not None
    assert after is not None
    assert before > 10_000_000
    assert 0.95 * NEEDED < after - before < 1.1 * NEEDED


def test_a_new_process_does_not_begin_with_its_parents_peak() -> None:
    weight = np.ones(NEEDED, dtype=np.uint8)
    own = peak_memory_bytes()
    childs = run_apart(peak_memory_bytes)
    assert own is not None
    assert childs is not None
    assert childs < len(weight) < own


def test_a_process_that_is_not_there_has_no_peak() -> None:
    assert peak_memory_bytes(2**31 - 1) is None
