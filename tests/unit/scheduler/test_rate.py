"""The measured rate: which batches count, which do not, when they are forgotten."""

import pytest

from tamis.scheduler.rate import FEWEST_BATCHES, MEMORY_SECONDS, DrainRate, SuspensionClock


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rate(clock: Clock) -> DrainRate:
    return DrainRate(clock)


def test_nothing_is_known_before_the_first_batch(rate: DrainRate) -> None:
    assert rate.tokens_per_second is None
    assert rate.seconds_for(1000) is None
    assert rate.sure_seconds_for(1000, max_batch_tokens=1000) is None


def test_one_slow_batch_does_not_decide(rate: DrainRate) -> None:
    for _ in range(FEWEST_BATCHES):
        rate.observe(1000, 0.1)
    rate.observe(1000, 8.0)
    assert rate.tokens_per_second == pytest.approx(10_000)
    assert rate.sure_seconds_for(20_000, max_batch_tokens=1000) == pytest.approx(2.0)


def test_a_machine_that_has_become_slow_is_believed(rate: DrainRate) -> None:
    for _ in range(3):
        rate.observe(1000, 0.1)
    for _ in range(4):
        rate.observe(1000, 1.0)
    assert rate.tokens_per_second == pytest.approx(1000)


def test_tiny_batches_do_not_say_how_long_large_ones_take(rate: DrainRate) -> None:
    for _ in range(40):
        rate.observe(10, 0.01)
    assert rate.tokens_per_second == pytest.approx(1000)
    assert rate.sure_seconds_for(20_000, max_batch_tokens=1024) is None
    assert rate.sure_seconds_for(20, max_batch_tokens=1024) == pytest.approx(0.02)


def test_tiny_batches_do_not_lower_the_rate_of_large_ones(rate: DrainRate) -> None:
    for _ in range(3):
        rate.observe(1000, 0.1)
    for _ in range(40):
        rate.observe(10, 0.01)
    assert rate.tokens_per_second == pytest.approx(10_000)


def test_fewer_than_three_batches_refuse_nobody(rate: DrainRate) -> None:
    for _ in range(FEWEST_BATCHES - 1):
        rate.observe(1000, 8.0)
    assert rate.sure_seconds_for(1000, max_batch_tokens=1000) is None
    assert rate.seconds_for(1000) == pytest.approx(8.0)


def test_a_rate_is_forgotten_after_a_minute(rate: DrainRate, clock: Clock) -> None:
    for _ in range(5):
        rate.observe(1000, 8.0)
    clock.now += MEMORY_SECONDS + 0.1
    assert rate.tokens_per_second is None


def test_what_took_no_time_and_what_had_no_tokens_is_not_counted(rate: DrainRate) -> None:
    rate.observe(0, 1.0)
    rate.observe(10, 0.0)
    rate.observe(10, -0.5)
    assert rate.tokens_per_second is None


def test_seconds_without_a_tick_were_suspended(clock: Clock) -> None:
    suspension = SuspensionClock(clock)
    for _ in range(8):
        clock.now += suspension.TICK_SECONDS
        suspension.tick()
    assert suspension.suspended_seconds == 0

    clock.now += 8.0
    assert suspension.suspended_seconds == pytest.approx(8.0)
    suspension.tick()
    clock.now += 0.5
    assert suspension.suspended_seconds == pytest.approx(8.0)
