from tamis.workers.setbacks import LOSSES_UNTIL_LASTING, Setbacks


def setbacks() -> Setbacks:
    return Setbacks(first_pause=0.5, longest_pause=30.0)


def test_pauses_double_up_to_a_bound_where_no_worker_comes_up() -> None:
    counted, pauses = setbacks(), []
    for _ in range(9):
        counted.observe_end(None)
        pauses.append(counted.pause)
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_three_that_do_not_come_up_in_a_row_are_not_waited_for() -> None:
    counted, lasting = setbacks(), []
    for seconds_up in (1.0, None, None):
        counted.observe_end(seconds_up)
        lasting.append(counted.is_lasting)
    assert lasting == [False, False, True]


def test_workers_that_come_up_have_hope_for_longer_but_not_for_ever() -> None:
    counted = setbacks()
    for _ in range(LOSSES_UNTIL_LASTING - 1):
        counted.observe_end(1.0)
        assert not counted.is_lasting
        assert counted.pause <= 0.5
    counted.observe_end(1.0)
    assert counted.is_lasting
    assert counted.pause == 30.0


def test_an_answer_is_a_new_beginning() -> None:
    counted = setbacks()
    for _ in range(2):
        counted.observe_end(None)
        counted.observe_end(None)
        counted.observe_answer()
        assert (counted.n_failures, counted.pause, counted.is_lasting) == (0, 0.0, False)


def test_a_worker_that_was_up_for_long_counts_as_the_first() -> None:
    counted = setbacks()
    for _ in range(5):
        counted.observe_end(None)
    counted.observe_end(31.0)
    assert (counted.n_failures, counted.pause, counted.is_lasting) == (1, 0.0, False)
