import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.engine.backend import Fault
from tamis.engine.padding import Padding
from tamis.engine.pairs import EncodedPair, Logits, logits_of
from tamis.errors import (
    DeviceLostError,
    InferenceError,
    OutOfMemoryError,
    RuntimeUnavailableError,
    ShuttingDownError,
    UnscorableDocumentError,
)
from tamis.scheduler.execution import FAILURES_UNTIL_STAND_IN, BatchRunner
from tamis.scheduler.jobs import Entry, Job
from tamis.scheduler.observer import BatchCallback, BatchObserver, BatchReport
from tamis.testing import FakeBackend, WordTokenizer, fake_logit
from tests.pair_scores import failures_of

BUDGET = 1024
CUDA_MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Counting(BatchObserver):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def batch_failed(self) -> None:
        self.events.append("batch failed")

    def pairs_failed(self, n_pairs: int) -> None:
        self.events += ["pair failed"] * n_pairs

    def logits_not_finite(self, n_logits: int) -> None:
        self.events += ["not finite"] * n_logits

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
    assert list(failures_of(job.scores)) == [bad]
    assert isinstance(failures_of(job.scores)[bad], UnscorableDocumentError)
    assert f"document {bad} cannot be scored" in str(failures_of(job.scores)[bad])
    good = [n for n in range(n_pairs) if n != bad]
    assert logits_of(job.scores)[good].tolist() == [expected(job)[n] for n in good]


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

    assert logits_of(job.scores).tolist() == expected(job)
    assert list(map(len, backend.batches)) == [3, 1]


def test_a_pair_whose_logit_stays_without_a_number_fails_alone() -> None:
    job = job_of("a", "b", "c")

    class Faulty(FakeBackend):
        """Has no number for one pair, wherever it is."""

        def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
            bad = np.array([pair is job.pairs[1] for pair in pairs])
            return np.where(bad, np.float32(np.nan), super().forward(pairs))

    BatchRunner(Faulty(), max_batch_tokens=BUDGET).run(entries_of(job))

    assert list(failures_of(job.scores)) == [1]
    assert "not a finite number" in str(failures_of(job.scores)[1])
    assert np.isfinite(logits_of(job.scores)[[0, 2]]).all()


class Imprecise(FakeBackend):
    """Has no number for texts of more than so many tokens, as float16 may have none."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self._n_tokens = n_tokens

    def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
        logits = super().forward(pairs)
        large = np.array([pair.n_tokens > self._n_tokens for pair in pairs])
        return np.where(large, np.float32(np.inf), logits).astype(np.float32)


def test_a_pair_for_which_less_precision_has_no_number_is_computed_in_float32() -> None:
    job, counting, made = job_of("a", "b " * 40, "c", "d " * 50), Counting(), []

    def in_float32() -> FakeBackend:
        made.append(FakeBackend())
        return made[0]

    backend = Imprecise(20)
    runner = BatchRunner(backend, max_batch_tokens=BUDGET, in_float32=in_float32, observer=counting)
    runner.run(entries_of(job))

    assert logits_of(job.scores).tolist() == expected(job)
    assert not failures_of(job.scores)
    assert list(map(len, backend.batches)) == [4, 1, 1, 1]  # one to see that the model works
    assert [list(map(len, one.batches)) for one in made] == [[1, 1]]
    assert counting.events == ["not finite"] * 4
    runner.close()
    assert made[0].closed


@pytest.mark.parametrize("in_float32", [lambda: Imprecise(20), lambda: None, lambda: 1 / 0])
def test_a_pair_without_a_number_in_float32_either_fails_alone(
    in_float32: Callable[[], FakeBackend | None],
) -> None:
    job = job_of("a", "b " * 40)
    BatchRunner(Imprecise(20), max_batch_tokens=BUDGET, in_float32=in_float32).run(entries_of(job))
    assert list(failures_of(job.scores)) == [1]
    assert "not a finite number" in str(failures_of(job.scores)[1])


def test_a_device_that_gives_no_numbers_at_all_is_a_broken_one() -> None:
    backend, stand_in = Imprecise(0), FakeBackend()
    runner = BatchRunner(
        backend,
        max_batch_tokens=BUDGET,
        stand_in=lambda: stand_in,
        known_good=job_of("warm up").pairs[0],
    )
    jobs = [job_of(*"abcd") for _ in range(FAILURES_UNTIL_STAND_IN)]
    for job in jobs:
        runner.run(entries_of(job))
    assert {type(error) for job in jobs[:-1] for error in failures_of(job.scores).values()} == {
        DeviceLostError
    }
    assert list(map(len, backend.batches)) == [4, 1] * FAILURES_UNTIL_STAND_IN
    assert logits_of(jobs[-1].scores).tolist() == expected(jobs[-1])
    assert runner.degraded == "stand_in"


def test_memory_that_lacks_is_an_event_and_no_failure() -> None:
    job, counting = job_of(*["one two three four"] * 16), Counting()
    backend = FakeBackend(wanting_memory(100))
    runner = BatchRunner(backend, max_batch_tokens=BUDGET, observer=counting)

    runner.run(entries_of(job))

    assert logits_of(job.scores).tolist() == expected(job)
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

    assert logits_of(job.scores).tolist() == expected(job)
    assert list(map(len, elsewhere.batches)) == [1]


def test_a_pair_that_another_device_had_room_for_does_not_tell_whether_this_one_works() -> None:
    """A poison document after it must not pass for a lost device."""
    job = job_of("fine", "poison")

    def check(pairs: Sequence[EncodedPair]) -> None:
        wanting_memory(40)(pairs)
        failing_on(job, 1)(pairs)

    runner = BatchRunner(FakeBackend(check), max_batch_tokens=BUDGET, stand_in=FakeBackend)
    runner.run(entries_of(job_of("large " * 50)))
    runner.run(entries_of(job))
    assert list(failures_of(job.scores)) == [1]
    assert isinstance(failures_of(job.scores)[1], UnscorableDocumentError)


def test_pairs_that_are_too_large_do_not_make_a_device_a_bad_one() -> None:
    backend, elsewhere = FakeBackend(wanting_memory(40)), FakeBackend()
    runner = fed(BatchRunner(backend, max_batch_tokens=BUDGET, stand_in=lambda: elsewhere))
    for _ in range(2 * FAILURES_UNTIL_STAND_IN):
        job = job_of("large " * 50)
        runner.run(entries_of(job))
        assert logits_of(job.scores).tolist() == expected(job)
    assert runner.degraded == "less_memory"
    assert len(elsewhere.batches) == 2 * FAILURES_UNTIL_STAND_IN


def test_a_device_without_memory_for_any_pair_is_left_for_its_stand_in() -> None:
    backend, elsewhere = FakeBackend(), FakeBackend()
    runner = fed(BatchRunner(backend, max_batch_tokens=BUDGET, stand_in=lambda: elsewhere))
    backend._before_forward = wanting_memory(0)
    for _ in range(FAILURES_UNTIL_STAND_IN):
        assert runner.degraded != "stand_in"
        job = job_of("a", "b")
        runner.run(entries_of(job))
        assert logits_of(job.scores).tolist() == expected(job)
    assert runner.degraded == "stand_in"
    assert backend.closed


@pytest.mark.parametrize("stand_in", [None, lambda: FakeBackend(wanting_memory(40))])
def test_a_pair_too_large_for_every_device_is_told_so_alone(
    stand_in: Callable[[], FakeBackend] | None,
) -> None:
    job = job_of("small", "large " * 50)
    backend = FakeBackend(wanting_memory(40))

    BatchRunner(backend, max_batch_tokens=BUDGET, stand_in=stand_in).run(entries_of(job))

    assert list(failures_of(job.scores)) == [1]
    assert isinstance(failures_of(job.scores)[1], OutOfMemoryError)
    assert "document 1 has 58 tokens" in str(failures_of(job.scores)[1])
    assert logits_of(job.scores)[0] == np.float32(expected(job)[0])


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

    assert {type(error) for error in failures_of(job.scores).values()} == {InferenceError}
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

    assert {type(error) for job in jobs for error in failures_of(job.scores).values()} == {
        DeviceLostError
    }
    answered = [not failures_of(job.scores) for job in jobs]
    assert answered == [False] * (FAILURES_UNTIL_STAND_IN - 1) + [True, True]
    assert logits_of(jobs[-1].scores).tolist() == expected(jobs[-1])
    assert counting.events.count("stand-in") == 1
    assert backend.closed
    assert runner.degraded == "stand_in"
    runner.close()
    assert stand_in.closed


def test_a_device_that_does_not_even_close_is_left_all_the_same() -> None:
    class Lost(FakeBackend):
        def close(self) -> None:
            raise RuntimeError("CUDA error: device lost")

    backend = Lost()
    runner = fed(BatchRunner(backend, max_batch_tokens=BUDGET, stand_in=FakeBackend))
    backend._before_forward = failing_always
    for _ in range(FAILURES_UNTIL_STAND_IN):
        job = job_of("a")
        runner.run(entries_of(job))
    assert logits_of(job.scores).tolist() == expected(job)
    assert runner.degraded == "stand_in"


def failing_always(_: object) -> None:
    raise RuntimeError("CUDA error: device lost")


@pytest.mark.parametrize("error", [RuntimeUnavailableError("no other device"), ValueError("odd")])
def test_a_stand_in_that_cannot_be_had_leaves_things_as_they_are(error: Exception) -> None:
    def refuse() -> FakeBackend:
        raise error

    runner = fed(BatchRunner(broken_after(1), max_batch_tokens=BUDGET, stand_in=refuse))
    kinds = []
    for _ in range(FAILURES_UNTIL_STAND_IN + 2):
        job = job_of("a")
        runner.run(entries_of(job))
        kinds.append(type(failures_of(job.scores)[0]))
    hoping = FAILURES_UNTIL_STAND_IN - 1
    assert kinds == [DeviceLostError] * hoping + [InferenceError] * 3
    assert runner.degraded == "failing"


class Renewed(FakeBackend):
    """Fails on everything until it was restarted so often."""

    def __init__(self, n_restarts: int) -> None:
        super().__init__(self._check)
        self.fault: Fault | None = None
        self.n_restarts = 0
        self._wanted = n_restarts

    def _check(self, _: Sequence[EncodedPair]) -> None:
        if len(self.batches) > 1 and self.n_restarts < self._wanted:
            raise InferenceError("the model failed")

    def wait_until_available(self, seconds: float) -> None:
        """See `SupervisedBackend.wait_until_available`."""

    def restart(self, _: str) -> None:
        """See `RestartableBackend.restart`."""
        self.n_restarts += 1


def test_a_backend_that_can_be_restarted_is_and_the_batch_is_asked_again() -> None:
    backend = Renewed(1)
    runner = fed(BatchRunner(backend, max_batch_tokens=BUDGET))
    job = job_of("a", "b")
    runner.run(entries_of(job))
    assert logits_of(job.scores).tolist() == expected(job)
    assert backend.n_restarts == 1


def test_a_backend_is_restarted_once_a_batch() -> None:
    backend = Renewed(2)
    runner = fed(BatchRunner(backend, max_batch_tokens=BUDGET))
    first, second = job_of("a", "b"), job_of("c")
    runner.run(entries_of(first))
    assert {type(error) for error in failures_of(first.scores).values()} == {DeviceLostError}
    runner.run(entries_of(second))
    assert logits_of(second.scores).tolist() == expected(second)


def test_a_backend_that_is_closed_in_the_middle_of_it_is_no_failure_of_the_model() -> None:
    def check(pairs: Sequence[EncodedPair]) -> None:
        closed = ShuttingDownError("the server is shutting down")
        raise InferenceError("the model failed") if len(pairs) > 1 else closed

    known, job = job_of("warm up").pairs[0], job_of("a", "b")
    runner = BatchRunner(FakeBackend(check), max_batch_tokens=BUDGET, known_good=known)
    runner.run(entries_of(job))
    assert {type(error) for error in failures_of(job.scores).values()} == {ShuttingDownError}


def test_pairs_nobody_waits_for_any_more_are_left_out() -> None:
    gone, stays = job_of("gone"), job_of("stays")
    gone.is_wanted = False
    backend = FakeBackend()

    BatchRunner(backend, max_batch_tokens=BUDGET).run(entries_of(gone, stays))

    assert backend.batches == [list(stays.pairs)]


@pytest.mark.parametrize(("fills_up_to", "n_padding"), [("none", 0), ("longest", 2)])
def test_a_report_counts_what_is_computed_and_what_is_padded(
    fills_up_to: Padding, n_padding: int
) -> None:
    class Padded(FakeBackend):
        padding = fills_up_to

    reports: list[BatchReport] = []
    job = job_of("a bear", "a cat and a")
    BatchRunner(Padded(), max_batch_tokens=BUDGET, observer=BatchCallback(reports.append)).run(
        entries_of(job)
    )
    (report,) = reports
    assert report.n_computed_tokens == report.n_tokens == job.n_tokens
    assert report.n_padding_tokens == n_padding
