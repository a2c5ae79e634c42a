"""The breaker opens on failures, tries once, and never believes old news."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tamis.cache.breaker import Breaker


def opened_at(now: float) -> Breaker:
    """A breaker that has just had its five failures."""
    breaker = Breaker()
    for _ in range(5):
        ticket = breaker.admit(now)
        assert ticket is not None
        breaker.fail(ticket, now)
    return breaker


def test_it_opens_at_the_fifth_failure_and_not_before() -> None:
    breaker = Breaker()
    for n_failures in range(1, 6):
        ticket = breaker.admit(0.0)
        assert ticket is not None
        breaker.fail(ticket, 0.0)
        assert breaker.state == ("open" if n_failures == 5 else "closed")
    assert breaker.admit(0.0) is None


def test_failures_that_are_far_apart_do_not_open_it() -> None:
    breaker = Breaker()
    for second in range(0, 100, 3):
        ticket = breaker.admit(second)
        assert ticket is not None
        breaker.fail(ticket, second)
    assert breaker.state == "closed"


def test_after_five_seconds_one_call_is_let_through() -> None:
    breaker = opened_at(0.0)
    assert breaker.admit(4.99) is None
    assert breaker.admit(5.0) is not None
    assert breaker.state == "half_open"
    assert breaker.admit(5.0) is None


def test_a_trial_that_goes_well_closes_it() -> None:
    breaker = opened_at(0.0)
    trial = breaker.admit(5.0)
    assert trial is not None
    breaker.succeed(trial)
    assert breaker.state == "closed"
    assert breaker.admit(5.0) is not None


def test_a_trial_that_fails_opens_it_for_as_long_again() -> None:
    breaker = opened_at(0.0)
    trial = breaker.admit(7.0)
    assert trial is not None
    breaker.fail(trial, 8.0)
    assert breaker.state == "open"
    assert breaker.admit(12.99) is None
    assert breaker.admit(13.0) is not None


def test_a_trial_that_never_reports_is_followed_by_another() -> None:
    breaker = opened_at(0.0)
    lost = breaker.admit(5.0)
    assert breaker.admit(9.99) is None
    trial = breaker.admit(10.0)
    assert lost is not None
    assert trial is not None
    breaker.succeed(lost)
    assert breaker.admit(10.0) is None
    breaker.succeed(trial)
    assert breaker.state == "closed"


class BreakerMachine(RuleBasedStateMachine):
    """Any order of calls, outcomes and waiting, against what the rules say of each."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(n_failures=3, within_seconds=10, open_seconds=5)
        self.now = 0
        self.current: list[int] = []  # calls since the breaker last turned
        self.stale: list[int] = []
        self.failures: list[int] = []
        self.open_until: int | None = None

    def turned(self, open_until: int | None) -> None:
        self.stale += self.current
        self.current, self.failures, self.open_until = [], [], open_until

    @rule(seconds=st.integers(0, 6))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        expected = self.open_until is None or self.now >= self.open_until
        ticket = self.breaker.admit(self.now)
        assert (ticket is not None) == expected
        if ticket is None:
            return
        if self.open_until is not None:
            self.turned(self.now + 5)
        self.current.append(ticket)

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.current))
        self.current.remove(ticket)
        self.breaker.succeed(ticket)
        if self.open_until is not None:
            self.turned(None)

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.current))
        self.current.remove(ticket)
        self.breaker.fail(ticket, self.now)
        self.failures.append(self.now)
        recent = [failed for failed in self.failures if self.now - failed <= 10]
        if self.open_until is not None or len(recent) >= 3:
            self.turned(self.now + 5)

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), well=st.booleans())
    def hear_of_an_old_call(self, data: st.DataObject, well: bool) -> None:
        ticket = data.draw(st.sampled_from(self.stale))
        before = self.breaker.state
        if well:
            self.breaker.succeed(ticket)
        else:
            self.breaker.fail(ticket, self.now)
        assert self.breaker.state == before

    @invariant()
    def it_is_closed_or_not(self) -> None:
        assert (self.breaker.state == "closed") == (self.open_until is None)


TestBreakerMachine = BreakerMachine.TestCase
