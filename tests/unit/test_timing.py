from collections.abc import Generator, Sequence
from contextlib import contextmanager

import pytest

from tamis.timing import PHASES, BatchRun, Phase, PhaseObserver, PhaseObservers


class Noting(PhaseObserver):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def phase(self, name: Phase) -> Generator[None]:
        self.events.append(f"{name} begins")
        try:
            yield
        finally:
            self.events.append(f"{name} ends")

    def passed(
        self, name: Phase, started: float, ended: float, batches: Sequence[BatchRun] = ()
    ) -> None:
        self.events.append(f"{name} took {ended - started:g} s and {len(batches)} batches")


def test_who_does_not_care_is_told_and_does_nothing() -> None:
    nobody = PhaseObserver()
    entered: list[object] = []
    for name in PHASES:
        with nobody.phase(name) as phase:
            entered.append(phase)
            nobody.passed(name, 0.0, 1.0)
    assert entered == [None] * len(PHASES)
    assert not vars(nobody)


def test_several_observers_are_all_told() -> None:
    one, other = Noting(), Noting()
    both = PhaseObservers(one, other)
    with both.phase("encode"):
        both.passed("queue", 1.0, 3.0, [BatchRun(1.0, 2.0, 3, 4, 5)])
    assert one.events == ["encode begins", "queue took 2 s and 1 batches", "encode ends"]
    assert other.events == one.events


def test_a_phase_that_fails_ends_for_all_of_them() -> None:
    one, other = Noting(), Noting()
    with pytest.raises(ValueError, match="bad"), PhaseObservers(one, other).phase("rank"):
        raise ValueError("bad")
    assert one.events == other.events == ["rank begins", "rank ends"]
