import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.errors import InferenceError, QueueFullError, RequestTooLargeError
from tamis.scheduler.jobs import Batch, Job, Terms
from tamis.scheduler.queue import PairQueue

PLENTY = 1_000_000
LENGTHS = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12), max_size=12)


def job_of(
    *lengths: int,
    caller: str = "",
    priority: int = 0,
    deadline: float = math.inf,
    at_most: int | None = None,
) -> Job:
    """A job with pairs of so many tokens."""
    pairs = [EncodedPair((_zeros(length),), truncated=False) for length in lengths]
    return Job(pairs, Terms(caller, priority, deadline, max_caller_tokens=at_most))


def admit(queue: PairQueue, job: Job) -> None:
    """Add a job, if there is room for it."""
    queue.require_room(job.n_tokens, job.terms)
    queue.add(job)


def queue_of(*jobs: Job) -> PairQueue:
    """A roomy queue with some jobs waiting in it."""
    queue = PairQueue(max_tokens=PLENTY)
    for job in jobs:
        admit(queue, job)
    return queue


def drained(queue: PairQueue, max_tokens: int) -> list[Batch]:
    """All batches of a queue that nothing more comes to."""
    batches: list[Batch] = []
    while batch := queue.take(max_tokens):
        batches.append(batch)
    return batches


def _zeros(length: int) -> TokenSequence:
    return TokenSequence(np.zeros(length, dtype=np.int32), np.zeros(length, dtype=np.int32))


def _lengths(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [pair.n_tokens for pair in batch.pairs]


def test_an_empty_queue_has_no_batch() -> None:
    assert PairQueue(max_tokens=10).take(10) is None


def test_a_batch_takes_the_longest_pairs_first() -> None:
    queue = queue_of(job_of(5, 30, 10, 20))

    assert [_lengths(batch) for batch in drained(queue, 50)] == [[30, 20], [10, 5]]


def test_equally_long_pairs_keep_their_order() -> None:
    job = job_of(5, 9, 5, 9)

    assert list(job.waiting) == [1, 3, 0, 2]


def test_a_pair_longer_than_the_budget_goes_alone() -> None:
    queue = queue_of(job_of(100, 5), job_of(3))

    assert [_lengths(batch) for batch in drained(queue, 50)] == [[100], [3, 5]]


def test_a_batch_is_shared_by_several_jobs() -> None:
    first, second = job_of(10, 10), job_of(10, 10)

    batch = queue_of(first, second).take(40)

    assert batch is not None
    assert batch.jobs == [first, second]


def test_jobs_take_turns_at_the_head_of_batches() -> None:
    first, second, third = job_of(*[10] * 6), job_of(*[10] * 2), job_of(10)

    batches = drained(queue_of(first, second, third), 20)

    assert [batch.jobs for batch in batches] == [
        [first],
        [second],
        [third, first],
        [first],
        [first],
    ]


def test_a_job_whose_pairs_do_not_fit_beside_others_keeps_its_turn() -> None:
    large, small = job_of(*[100] * 50), job_of(50)

    batches = drained(queue_of(large, small), 1024)

    assert [small in batch.jobs for batch in batches[:2]] == [False, True]


def test_a_job_is_admitted_as_a_whole_or_not_at_all() -> None:
    queue = PairQueue(max_tokens=100)
    admit(queue, job_of(40, 20))

    with pytest.raises(QueueFullError, match=r"60 tokens are waiting or running and 41 more came"):
        admit(queue, job_of(20, 21))

    assert (queue.n_tokens, queue.n_jobs) == (60, 1)
    admit(queue, job_of(40))
    assert queue.n_tokens == 100


def test_a_job_that_never_fits_is_told_so() -> None:
    with pytest.raises(RequestTooLargeError, match=r"101 tokens, at most 100 .* split the request"):
        admit(PairQueue(max_tokens=100), job_of(50, 51))


def test_tokens_are_released_when_the_job_is_removed_and_not_when_it_is_taken() -> None:
    job = job_of(30, 30)
    queue = queue_of(job)

    queue.take(100)
    assert queue.n_tokens == 60
    queue.remove(job)
    assert queue.n_tokens == 0


def test_a_removed_job_leaves_no_pairs_behind() -> None:
    gone, stays = job_of(30, 30, 30), job_of(10)
    queue = queue_of(gone, stays)

    queue.take(30)
    queue.remove(gone)

    assert [batch.jobs for batch in drained(queue, 30)] == [[stays]]


def test_a_job_is_settled_when_each_pair_has_a_logit_or_a_reason() -> None:
    job = job_of(1, 2)

    job.give(1, 0.5)
    assert not job.settled
    job.fail(0, InferenceError("the model fell over"))

    assert job.settled
    assert [one.has_logit for one in job.scores] == [False, True]
    assert job.scores[1].logit == 0.5
    assert [bool(one.failure) for one in job.scores] == [True, False]


def test_a_flow_with_little_waits_for_no_more_than_a_batch_of_one_with_much() -> None:
    flood = [job_of(*[100] * 50, caller="a") for _ in range(20)]
    little = job_of(*[100] * 5, caller="b")

    batches = drained(queue_of(*flood, little), 1000)

    served = [n for n, batch in enumerate(batches) if little in batch.jobs]
    assert served == [0]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), st.sampled_from(["", "other"]))
@example(7, 7, 1, "")
def test_a_small_job_waits_for_one_batch_of_a_large_one_whatever_their_pairs_leave_over(
    large_tokens: int, small_tokens: int, n_batches_before: int, caller: str
) -> None:
    queue = queue_of(job_of(*[large_tokens] * 1000))
    for _ in range(n_batches_before):
        queue.take(60)
    small = job_of(*[small_tokens] * 5, caller=caller)
    admit(queue, small)
    n_batches = 2 if caller == "" else 2 + 5 * small_tokens // 30  # a flow has half of each batch

    for _ in range(n_batches):
        queue.take(60)

    assert not small.waiting


def test_flows_share_the_tokens_evenly_however_much_each_asks_for() -> None:
    lengths = {"a": [60] * 400, "b": [500] * 40, "c": [30, 200] * 90}
    queue = queue_of(*(job_of(*some, caller=caller) for caller, some in lengths.items()))
    taken = dict.fromkeys(lengths, 0)

    for _ in range(40):
        batch = queue.take(1000)
        assert batch is not None
        for job, position in batch.entries:
            taken[job.terms.caller] += job.pairs[position].n_tokens

    shares = np.array(list(taken.values()))
    assert shares.sum() ** 2 / (len(shares) * (shares**2).sum()) > 0.99  # Jain's index


def test_a_flow_gets_no_more_later_for_having_asked_for_nothing_before() -> None:
    queue = queue_of(job_of(*[10] * 100, caller="a"))
    for _ in range(5):
        queue.take(100)
    admit(queue, job_of(*[10] * 100, caller="late"))

    batch = queue.take(100)

    assert batch is not None
    assert sorted(job.terms.caller for job, _ in batch.entries) == ["a"] * 5 + ["late"] * 5


def test_of_one_flow_the_lower_priority_number_goes_first() -> None:
    last, first, second = job_of(10, priority=9), job_of(10), job_of(10)

    batches = drained(queue_of(last, first, second), 10)

    assert [batch.jobs for batch in batches] == [[first], [second], [last]]


def test_the_priority_of_one_flow_means_nothing_to_another() -> None:
    other, urgent = job_of(10, 10, caller="b", priority=999), job_of(10, 10, caller="a")

    batches = drained(queue_of(other, urgent), 20)

    assert [set(batch.jobs) for batch in batches] == [{other, urgent}] * 2


def test_a_pair_larger_than_its_flows_share_is_not_passed_over_for_ever() -> None:
    large = job_of(900, caller="large")
    others = [job_of(*[10] * 1000, caller=f"f{n}") for n in range(20)]

    batches = drained(queue_of(*others, large), 1000)

    assert next(n for n, batch in enumerate(batches) if large in batch.jobs) <= 20


def test_a_flow_has_a_bound_of_its_own() -> None:
    queue = PairQueue(max_tokens=100)
    admit(queue, job_of(20, caller="a", at_most=30))

    with pytest.raises(QueueFullError, match="20 tokens of this key are waiting") as refused:
        admit(queue, job_of(15, caller="a", at_most=30))
    with pytest.raises(RequestTooLargeError, match="31 tokens, at most 30"):
        admit(queue, job_of(31, caller="a", at_most=30))

    assert refused.value.n_tokens_over == 5
    admit(queue, job_of(15, caller="b", at_most=30))
    assert queue.n_tokens == 35


def test_what_is_late_is_not_taken() -> None:
    late, timely = job_of(10, 10, deadline=5.0), job_of(10, deadline=6.0)
    queue = queue_of(late, timely)

    batch = queue.take(100, now=5.0)

    assert batch is not None
    assert batch.jobs == [timely]
    assert queue.take(100, now=5.0) is None
    assert not late.is_wanted
    assert queue.n_tokens == 30


def test_waiting_tokens_are_counted_as_pairs_are_taken_and_jobs_leave() -> None:
    first, second = job_of(10, 20, 30), job_of(5)
    queue = queue_of(first, second)
    newcomer = job_of(1000)

    assert queue.tokens_before(newcomer) == 65
    assert queue.take(30) is not None
    assert queue.tokens_before(newcomer) == 35 == first.n_waiting_tokens + second.n_waiting_tokens
    queue.drop(first)
    assert queue.tokens_before(newcomer) == 5
    queue.remove(second)
    assert queue.tokens_before(newcomer) == 0


def test_a_long_queue_makes_nothing_slower() -> None:
    def seconds(n_jobs: int) -> float:
        queue = PairQueue(max_tokens=10_000_000)
        jobs = [job_of(5, caller=str(number % 7), priority=number % 3) for number in range(n_jobs)]
        for job in jobs:
            admit(queue, job)
        started = time.perf_counter()
        for job in jobs[:200]:
            queue.tokens_before(job)
            queue.remove(job)
            admit(queue, job)
            queue.take(20)
        return time.perf_counter() - started

    assert min(seconds(20_000) for _ in range(3)) < 5 * min(seconds(1_000) for _ in range(3))


def test_many_flows_make_nothing_slower() -> None:
    def seconds(n_flows: int, *lengths: int) -> float:
        queue = PairQueue(max_tokens=100_000_000)
        for number in range(n_flows):
            queue.add(job_of(lengths[number % len(lengths)], 10, caller=str(number)))
        newcomer = job_of(500, caller="newcomer")
        started = time.perf_counter()
        for _ in range(200):
            assert queue.take(4096) is not None
            assert queue.n_jobs
            assert queue.tokens_before(newcomer)
        return time.perf_counter() - started

    for lengths in ((500,), (20, 500, 90, 300), (4000,)):
        assert seconds(5000, *lengths) < 1.5  # it was 5 s and more for the first batch alone


def test_a_small_job_among_many_flows_waits_for_a_sixteenth_of_a_batch_of_each() -> None:
    large = [job_of(*[500] * 20, caller=str(number)) for number in range(64)]
    small = job_of(10, caller="small")
    queue = queue_of(*large, small)

    batches = drained(queue, 4096)

    assert next(n for n, batch in enumerate(batches) if small in batch.jobs) <= 64 // 16


def test_what_flows_have_waiting_is_counted_whatever_becomes_of_it() -> None:
    jobs = [
        job_of(*[number % 9 + 1] * (number % 5 + 1), caller=str(number % 7), deadline=number % 11)
        for number in range(200)
    ]
    queue = queue_of(*jobs)
    there = list(jobs)

    for number in range(100):
        if number % 3:
            queue.take(20, now=number / 20)
        else:
            queue.remove(there.pop(number % len(there)))
        waiting = [job for job in there if job.waiting]
        n_tokens = sum(job.n_waiting_tokens for job in waiting)
        assert queue.n_jobs == len(waiting)
        assert queue.tokens_before(job_of(10**6, caller="newcomer")) == n_tokens


@given(st.lists(st.integers(1, 5000), max_size=40), st.integers(1, 5000))
def test_tokens_before_a_job_are_at_most_twice_those_that_are(others: list[int], own: int) -> None:
    queue = queue_of(*(job_of(length, caller=str(n)) for n, length in enumerate(others)))

    n_before = queue.tokens_before(job_of(own, caller="own"))

    exactly = sum(min(own, length) for length in others)
    assert exactly <= n_before <= 2 * exactly


def test_tokens_before_a_job_are_those_of_its_equals_up_to_as_many_as_it_has() -> None:
    queue = queue_of(
        job_of(100, 100, caller="other"),
        job_of(50, caller="own"),
        job_of(100, 100, caller="own"),
        job_of(70, caller="own", priority=1),
        job_of(70, caller="own", priority=9),
    )

    job = job_of(60, caller="own", priority=1)

    assert queue.tokens_before(job) == 60 + 50 + 200 + 60


@given(LENGTHS, st.integers(1, 100))
def test_every_pair_is_taken_once_and_no_batch_exceeds_the_budget(
    lengths: Sequence[Sequence[int]], budget: int
) -> None:
    jobs = [job_of(*some) for some in lengths]

    batches = drained(queue_of(*jobs), budget)

    taken = [entry for batch in batches for entry in batch.entries]
    assert len(taken) == len(set(taken)) == sum(map(len, lengths))
    assert all(sum(_lengths(batch)) <= budget or len(batch.entries) == 1 for batch in batches)


@given(LENGTHS, st.integers(1, 100))
def test_a_job_at_place_n_is_served_within_n_batches(
    lengths: Sequence[Sequence[int]], budget: int
) -> None:
    jobs = [job_of(*some) for some in lengths]

    batches = drained(queue_of(*jobs), budget)

    for place, job in enumerate(jobs):
        assert any(job in batch.jobs for batch in batches[: place + 1])


@given(LENGTHS, st.integers(1, 100), st.data())
def test_removing_jobs_at_any_time_leaves_the_count_right(
    lengths: Sequence[Sequence[int]], budget: int, data: st.DataObject
) -> None:
    jobs = [job_of(*some) for some in lengths]
    queue = queue_of(*jobs)
    there = list(jobs)

    while there:
        if data.draw(st.booleans()):
            queue.take(budget)
        else:
            queue.remove(there.pop(data.draw(st.integers(0, len(there) - 1))))
        assert queue.n_tokens == sum(job.n_tokens for job in there)

    assert (queue.n_tokens, queue.n_jobs, queue.take(budget)) == (0, 0, None)
