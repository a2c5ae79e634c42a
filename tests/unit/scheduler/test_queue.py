from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.errors import QueueFullError, RequestTooLargeError
from tamis.scheduler.queue import Batch, Job, PairQueue

PLENTY = 1_000_000
LENGTHS = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12), max_size=12)


def job_of(*lengths: int) -> Job:
    """A job with pairs of so many tokens."""
    return Job([EncodedPair((_zeros(length),), truncated=False) for length in lengths])


def queue_of(*jobs: Job) -> PairQueue:
    """A roomy queue with some jobs waiting in it."""
    queue = PairQueue(max_tokens=PLENTY)
    for job in jobs:
        queue.add(job)
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
    assert batch.only(second).entries == ((second, 0), (second, 1))


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
    queue.add(job_of(40, 20))

    with pytest.raises(QueueFullError, match=r"60 tokens are waiting or running and 41 more came"):
        queue.add(job_of(20, 21))

    assert (queue.n_tokens, queue.n_jobs) == (60, 1)
    queue.add(job_of(40))
    assert queue.n_tokens == 100


def test_a_job_that_never_fits_is_told_so() -> None:
    with pytest.raises(RequestTooLargeError, match=r"101 tokens, at most 100 .* split the request"):
        PairQueue(max_tokens=100).add(job_of(50, 51))


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


def test_a_job_is_finished_when_each_pair_has_its_own_logit() -> None:
    first, second = job_of(1, 2), job_of(3)
    batch = queue_of(first, second).take(100)
    assert batch is not None

    batch.deliver(np.array([0.25, 0.5, 0.75], dtype=np.float32))

    assert first.finished
    assert second.finished
    assert first.logits.tolist() == [0.5, 0.25]
    assert second.logits.tolist() == [0.75]


@pytest.mark.parametrize("n_logits", [0, 1, 3])
def test_a_wrong_number_of_logits_reaches_no_job(n_logits: int) -> None:
    job = job_of(1, 2)
    batch = queue_of(job).take(100)
    assert batch is not None

    with pytest.raises(ValueError, match="2 pairs"):
        batch.deliver(np.zeros(n_logits, dtype=np.float32))

    assert job.n_unscored == 2


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
