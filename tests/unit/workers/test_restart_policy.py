from tamis.workers.restart_policy import LOSSES_UNTIL_CRASH_LOOP, RestartPolicy


def policy() -> RestartPolicy:
    return RestartPolicy(initial_backoff_seconds=0.5, max_backoff_seconds=30.0)


def test_pauses_double_up_to_a_bound_where_no_worker_comes_up() -> None:
    counted, pauses = policy(), []
    for _ in range(9):
        counted.record_exit(None)
        pauses.append(counted.backoff_seconds)
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_three_that_do_not_come_up_in_a_row_are_not_waited_for() -> None:
    counted, lasting = policy(), []
    for seconds_up in (1.0, None, None):
        counted.record_exit(seconds_up)
        lasting.append(counted.is_crash_loop)
    assert lasting == [False, False, True]


def test_workers_that_come_up_have_hope_for_longer_but_not_for_ever() -> None:
    counted = policy()
    for _ in range(LOSSES_UNTIL_CRASH_LOOP - 1):
        counted.record_exit(1.0)
        assert not counted.is_crash_loop
        assert counted.backoff_seconds <= 0.5
    counted.record_exit(1.0)
    assert counted.is_crash_loop
    assert counted.backoff_seconds == 30.0


def test_an_answer_is_a_new_beginning() -> None:
    counted = policy()
    for _ in range(2):
        counted.record_exit(None)
        counted.record_exit(None)
        counted.record_answer()
        assert (counted.n_failures, counted.backoff_seconds, counted.is_crash_loop) == (
            0,
            0.0,
            False,
        )


def test_a_worker_that_was_up_for_long_counts_as_the_first() -> None:
    counted = policy()
    for _ in range(5):
        counted.record_exit(None)
    counted.record_exit(31.0)
    assert (counted.n_failures, counted.backoff_seconds, counted.is_crash_loop) == (1, 0.0, False)
