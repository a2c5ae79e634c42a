from tamis.engine.backend import Fault
from tamis.testing import FakeBackend, WordTokenizer
from tamis.workers.backend import WorkerBackend
from tamis.workers.stall_detector import StallDetector, WatchedBackend
from tamis.workers.supervisor import Supervisor
from tamis.workers.vitals import Vitals


class Ailing(FakeBackend):
    """A backend that is out of order, or not."""

    def __init__(self, reason: str | None) -> None:
        super().__init__()
        self.fault = None if reason is None else Fault(reason, is_lasting=False)

    def wait_until_available(self, seconds: float) -> None:
        """See `SupervisedBackend.wait_until_available`."""


def test_where_nothing_is_wrong_there_is_no_reason() -> None:
    vitals = Vitals()
    vitals.watch([Ailing(None), Ailing(None)])
    assert (vitals.reason, vitals.is_down, vitals.is_stalled) == (None, False, False)


def test_one_of_two_is_a_reason_and_both_of_them_are_the_end() -> None:
    vitals = Vitals()
    vitals.watch([Ailing("one is ill"), Ailing(None)])
    assert (vitals.reason, vitals.is_down) == ("one is ill", False)
    vitals.watch([Ailing("two is ill")])
    assert (vitals.reason, vitals.is_down) == ("one is ill; two is ill", True)


def test_a_worker_that_is_down_is_no_stall_of_this_process() -> None:
    vitals = Vitals()
    vitals.watch([WorkerBackend(Supervisor(0))])
    assert vitals.is_down
    assert not vitals.is_stalled


def test_a_model_that_hangs_here_is() -> None:
    vitals = Vitals()
    backend = WatchedBackend(
        FakeBackend(lambda _: seen.append(vitals.is_stalled)), StallDetector(-1.0)
    )
    vitals.watch([backend])
    seen: list[bool] = []
    pairs = WordTokenizer().encode("q", ["a"])
    backend.forward(pairs)
    assert seen == [True]
    assert not vitals.is_stalled
