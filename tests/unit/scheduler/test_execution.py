import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.engine.pairs import EncodedPair, Logits
from tamis.errors import (
    InferenceError,
    OutOfMemoryError,
    RuntimeUnavailableError,
    UnscorableDocumentError,
)
from tamis.scheduler.execution import FAILURES_UNTIL_STAND_IN, BatchRunner, Observer
from tamis.scheduler.jobs import Entry, Job
from tamis.testing import FakeBackend, WordTokenizer, fake_logit

BUDGET = 1024
CUDA_MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Counting(Observer):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def batch_failed(self) -> None:
        self.events.append("batch failed")

    def pairs_failed(self, n_pairs: int) -> None:
        self.events += ["pair failed"] * n_pairs

    def out_of_memory(self) -> None:
        self.events.append("out of memory")

    def stand_in_took_over(self) -> None:
        self.events.append("stand-in")


def job_of(*documents: str) -> Job:
    """A job with a pair for each document."""
    return Job(WordTokenizer().encode("what is a panda", documents))


def entries_of(*jobs: Job) -> list[Entry]:
    """All pairs of some jobs."""
    return [(job, position) for job in jobs for position in range(len(job.pairs))]


def expected(job: Job) -> list[float]:
    """The logits of pairs that nobody else's have disturbed."""
    return np.array([fake_logit(pair) for pair in job.pairs], dtype=np.float32).tolist()


def failing_on(job: Job, position: int) -> Callable[[Sequence[EncodedPair]], None]:
    """Fails every batch in which this very pair is."""
    bad = job.pairs[position]

    def check(pairs: Sequence[EncodedPair]) -> None:
        if any(pair is bad for pair in pairs):
            raise ValueError("bad pair")

    return check


def wanting_memory(n_tokens: int) -> Callable[[Sequence[EncodedPair]], None]:
    """Fails every batch of more tokens, as torch does on a GPU."""

    def check(pairs: Sequence[EncodedPair]) -> None:
        if sum(pair.n_tokens for pair in pairs) > n_tokens:
            raise RuntimeError(CUDA_MESSAGE)

    return check


def fed(runner: BatchRunner) -> BatchRunner:
    """A runner that has scored a pair before."""
    runner.run(entries_of(job_of("warm up")))
    return runner


@given(st.integers(1, 40), st.data())
def test_one_bad_pair_among_many_is_found_in_few_passes_and_hits_nobody_else(
    n_pairs: int, data: st.DataObject
) -> None:
    job = job_of(*(f"document {n}" for n in range(n_pairs)))
    bad = data.draw(st.integers(0, n_pairs - 1))
    backend = FakeBackend(failing_on(job, bad))
    runner = fed(BatchRunner(backend, max_batch_tokens=BUDGET))
    before = len(backend.batches)

    runner.run(entries_of(job))

    n_extra = len(backend.batches) - before - 1
    assert n_extra <= 1 + 2 * math.ceil(math.log2(n_pairs))  # 1 to see that the model still works
    assert job.settled
    assert list(job.failures) == [bad]
    assert isinstance(job.failures[bad], UnscorableDocumentError)
    assert f"document {bad} cannot be scored" in str(job.failures[bad])
    good = [n for n in range(n_pairs) if n != bad]
    assert job.logits[good].tolist() == [expected(job)[n] for n in good]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_tried_alone_and_never_leaves(value: float) -> None:
    job = job_of("a", "b", "c")

    class Faulty(FakeBackend):
        """Spoils the second logit of every batch with more than one pair."""

        def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
            logits = super().forward(pairs)
            logits[1:2] = value
            return logits

    backend = Faulty()
    BatchRunner(backend, max_batch_tokens=BUDGET).run(entries_of(job))

    assert job.logits.tolist() == expected(job)
    assert list(map(len, backend.batches)) == [3, 1]


def test_a_pair_whose_logit_stays_without_a_number_fails_alone() -> None:
    job = job_of("a", "b", "c")

    class Faulty(FakeBackend):
        """Has no number for one pair, wherever it is."""

        def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
            bad = np.array([pair is job.pairs[1] for pair in pairs])
            return np.where(bad, np.float32(np.nan), super().forward(pairs))

    BatchRunner(Faulty(), max_batch_tokens=BUDGET).run(entries_of(job))

    assert list(job.failures) == [1]
    assert "not a finite number" in str(job.failures[1])
    assert np.isfinite(job.logits[[0, 2]]).all()


def test_memory_that_lacks_is_an_event_and_no_failure() -> None:
    job, counting = job_of(*["one two three four"] * 16), Counting()
    backend = FakeBackend(wanting_memory(100))
    runner = BatchRunner(backend, max_batch_tokens=BUDGET, observer=counting)

    runner.run(entries_of(job))

    assert job.logits.tolist() == expected(job)
    assert set(counting.events) == {"out of memory"}
    assert runner.max_batch_tokens <= 100
    assert runner.degraded == "less_memory"


def test_the_budget_grows_back_slowly_and_no_further() -> None:
    backend = FakeBackend(wanting_memory(100))
    runner = BatchRunner(backend, max_batch_tokens=BUDGET)
    runner.run(entries_of(job_of(*["one two three four"] * 16)))
    budgets = [runner.max_batch_tokens]

    for _ in range(40):
        runner.run(entries_of(job_of("small")))
        budgets.append(runner.max_batch_tokens)

    steps = np.diff(budgets)
    assert (steps >= 0).all()
    assert steps.max() <= BUDGET / 16
    assert budgets[-1] == BUDGET
    assert runner.degraded is None


def test_a_pair_too_large_for_the_device_goes_to_another_that_has_room() -> None:
    job = job_of("small", "large " * 50)
    elsewhere = FakeBackend()
    runner = BatchRunner(
        FakeBackend(wanting_memory(40)), max_batch_tokens=BUDGET, stand_in=lambda: elsewhere
    )

    runner.run(entries_of(job))

    assert job.logits.tolist() == expected(job)
    assert list(map(len, elsewhere.batches)) == [1]


@pytest.mark.parametrize("stand_in", [None, lambda: FakeBackend(wanting_memory(40))])
def test_a_pair_too_large_for_every_device_is_told_so_alone(
    stand_in: Callable[[], FakeBackend] | None,
) -> None:
    job = job_of("small", "large " * 50)
    backend = FakeBackend(wanting_memory(40))

    BatchRunner(backend, max_batch_tokens=BUDGET, stand_in=stand_in).run(entries_of(job))

    assert list(job.failures) == [1]
    assert isinstance(job.failures[1], OutOfMemoryError)
    assert "document 1 has 58 tokens" in str(job.failures[1])
    assert job.logits[0] == np.float32(expected(job)[0])


def broken_after(n_batches: int) -> FakeBackend:
    """A backend whose device is lost after so many batches."""

    def check(_: Sequence[EncodedPair]) -> None:
        if len(backend.batches) > n_batches:
            raise RuntimeError("CUDA error: device lost")

    backend = FakeBackend(check)
    return backend


def test_a_lost_device_is_nobodys_fault_and_is_not_searched_for_bad_pairs() -> None:
    backend, counting = broken_after(1), Counting()
    runner = fed(BatchRunner(backend, max_batch_tokens=BUDGET, observer=counting))
    job = job_of(*"abcdefgh")

    runner.run(entries_of(job))

    assert {type(error) for error in job.failures.values()} == {InferenceError}
    assert len(backend.batches) == 3  # the first, the one that failed, one to see whose fault it is
    assert counting.events == ["batch failed", *["pair failed"] * 8]


def test_a_device_that_keeps_failing_is_left_for_its_stand_in() -> None:
    backend, stand_in, counting = broken_after(1), FakeBackend(), Counting()
    runner = fed(
        BatchRunner(backend, max_batch_tokens=BUDGET, stand_in=lambda: stand_in, observer=counting)
    )
    jobs = [job_of("a", "b") for _ in range(FAILURES_UNTIL_STAND_IN + 1)]

    for job in jobs:
        runner.run(entries_of(job))

    answered = [not job.failures for job in jobs]
    assert answered == [False] * (FAILURES_UNTIL_STAND_IN - 1) + [True, True]
    assert jobs[-1].logits.tolist() == expected(jobs[-1])
    assert counting.events.count("stand-in") == 1
    assert backend.closed
    assert runner.degraded == "stand_in"
    runner.close()
    assert stand_in.closed


def test_a_stand_in_that_cannot_be_had_leaves_things_as_they_are() -> None:
    def refuse() -> FakeBackend:
        raise RuntimeUnavailableError("no other device")

    runner = fed(BatchRunner(broken_after(1), max_batch_tokens=BUDGET, stand_in=refuse))

    for _ in range(FAILURES_UNTIL_STAND_IN + 2):
        job = job_of("a")
        runner.run(entries_of(job))
        assert isinstance(job.failures[0], InferenceError)


def test_pairs_nobody_waits_for_any_more_are_left_out() -> None:
    gone, stays = job_of("gone"), job_of("stays")
    gone.is_wanted = False
    backend = FakeBackend()

    BatchRunner(backend, max_batch_tokens=BUDGET).run(entries_of(gone, stays))

    assert backend.batches == [list(stays.pairs)]
