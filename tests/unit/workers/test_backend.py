import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tamis.engine.backend import RenewableBackend, SupervisedBackend
from tamis.errors import (
    InferenceError,
    ModelNotFoundError,
    NotReadyError,
    QueueFullError,
    ShuttingDownError,
    TamisError,
)
from tamis.settings import ModelSettings
from tamis.testing import WordTokenizer, fake_logit
from tamis.workers.backend import Limits, WorkerBackend, refusal
from tamis.workers.channel import Answer, Refused, Start
from tests.fake_worker import CANARY, COMMAND, GO, lives, write_plan
from tests.integration.serving import until
from tests.processes import is_gone

PAIRS = WordTokenizer().encode("what is a panda", ["a bear", "a city " * 30])
LOGITS = [pytest.approx(fake_logit(pair)) for pair in PAIRS]
QUICK = Limits(stall=0.3, start=30.0, first_pause=0.01, longest_pause=0.05, end=1.0)

Hire = Callable[..., WorkerBackend]


@pytest.fixture
def hire(tmp_path: Path) -> Iterator[Hire]:
    """Starts a backend whose workers behave as a plan says, and closes it."""
    hired: list[WorkerBackend] = []

    def make(
        *plan: str, limits: Limits = QUICK, restarts: list[int] | None = None
    ) -> WorkerBackend:
        backend = WorkerBackend(
            0,
            limits=limits,
            command=COMMAND,
            on_restart=lambda: None if restarts is None else restarts.append(1),
        )
        hired.append(backend)
        settings = ModelSettings(name="fake").model_dump_json(exclude_unset=True).encode()
        folder = str(write_plan(tmp_path / "model", *plan))
        backend.start(Start(settings, folder, None, logging.WARNING, os.getpid()))
        return backend

    yield make
    for backend in hired:
        backend.close()


def test_a_worker_scores_what_it_is_given(hire: Hire) -> None:
    backend = hire("answers")
    ready = backend.wait_until_ready()
    assert (ready.name, ready.device, ready.max_batch_tokens) == ("fake", "cpu", 2048)
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert backend.forward(PAIRS[:1]).tolist() == LOGITS[:1]
    assert backend.fault is None
    assert isinstance(backend, SupervisedBackend)


def test_closing_ends_the_worker(hire: Hire) -> None:
    backend = hire("answers")
    backend.wait_until_ready()
    pid = backend.pid
    assert pid is not None
    backend.close()
    assert is_gone(pid)
    with pytest.raises(ShuttingDownError):
        backend.forward(PAIRS)
    backend.close()


def test_closing_ends_a_worker_that_hangs_and_frees_who_waits_for_it(
    hire: Hire, tmp_path: Path
) -> None:
    patient = Limits(stall=60.0, end=0.1)
    backend = hire("hangs", limits=patient)
    backend.wait_until_ready()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(backend.forward, PAIRS)
        until(lambda: backend._given is not None)
        backend.close()
        with pytest.raises(ShuttingDownError):
            waiting.result(30)
    assert is_gone(lives(tmp_path / "model")[0])


def test_closing_frees_who_waits_for_the_first_worker(hire: Hire) -> None:
    backend = hire("hangs loading")
    threading.Timer(0.05, backend.hang_up).start()
    with pytest.raises(ShuttingDownError):
        backend.wait_until_ready()


def test_one_that_was_never_started_can_be_closed() -> None:
    backend = WorkerBackend(0)
    backend.close()
    backend.start(Start(b"{}", "", None, 0, 0))
    assert backend.pid is None


def test_an_idle_worker_that_is_killed_is_replaced(hire: Hire) -> None:
    restarts: list[int] = []
    backend = hire("answers", restarts=restarts)
    backend.wait_until_ready()
    assert backend.pid is not None
    os.kill(backend.pid, signal.SIGKILL)
    until(lambda: bool(restarts))
    until(lambda: backend.fault is None)
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert len(restarts) == 1


def test_an_idle_worker_that_is_stopped_is_replaced(hire: Hire, tmp_path: Path) -> None:
    backend = hire("answers")
    backend.wait_until_ready()
    stopped = backend.pid
    assert stopped is not None
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: len(lives(tmp_path / "model")) == 2)
    assert is_gone(stopped)


def test_a_batch_whose_worker_dies_is_given_to_the_next_one(hire: Hire, tmp_path: Path) -> None:
    backend = hire("dies", "answers")
    backend.wait_until_ready()
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert len(lives(tmp_path / "model")) == 2


def test_a_batch_whose_worker_hangs_is_given_to_the_next_one(hire: Hire, tmp_path: Path) -> None:
    backend = hire("hangs", "answers")
    backend.wait_until_ready()
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert is_gone(lives(tmp_path / "model")[0])


def test_a_batch_that_costs_two_workers_fails_and_the_third_goes_on(hire: Hire) -> None:
    backend = hire("dies", "dies", "answers")
    backend.wait_until_ready()
    with pytest.raises(InferenceError, match=r"two workers in a row.*exit code 9"):
        backend.forward(PAIRS)
    assert backend.forward(PAIRS).tolist() == LOGITS


def test_a_model_that_raises_is_an_inference_error_without_its_words(
    hire: Hire, caplog: pytest.LogCaptureFixture
) -> None:
    backend = hire("raises", "answers")
    backend.wait_until_ready()
    with pytest.raises(InferenceError, match="RuntimeError") as raised:
        backend.forward(PAIRS)
    assert CANARY not in str(raised.value)
    assert "worker 0: the model failed on a batch" in caplog.text


def test_a_worker_that_only_raises_is_replaced(hire: Hire) -> None:
    backend = hire("raises", "answers")
    backend.wait_until_ready()
    for _ in range(5):
        with pytest.raises(InferenceError):
            backend.forward(PAIRS)
    until(lambda: backend.fault is None and backend._n_raised == 0)
    assert backend.forward(PAIRS).tolist() == LOGITS


def test_want_of_memory_is_told_as_such_and_costs_no_worker(hire: Hire, tmp_path: Path) -> None:
    backend = hire("has no memory")
    backend.wait_until_ready()
    for _ in range(7):
        with pytest.raises(MemoryError):
            backend.forward(PAIRS)
    assert len(lives(tmp_path / "model")) == 1


def test_a_model_that_is_refused_at_first_is_the_error_it_was(hire: Hire, tmp_path: Path) -> None:
    backend = hire("refuses")
    with pytest.raises(ModelNotFoundError, match="no such model"):
        backend.wait_until_ready()
    backend.close()
    assert len(lives(tmp_path / "model")) == 1


def test_a_worker_that_ends_while_loading_is_tried_again(hire: Hire, tmp_path: Path) -> None:
    backend = hire("exits", "exits", "answers")
    assert backend.wait_until_ready().name == "fake"
    assert len(lives(tmp_path / "model")) == 3
    assert backend.forward(PAIRS).tolist() == LOGITS


def test_a_worker_that_hangs_while_loading_is_replaced(hire: Hire, tmp_path: Path) -> None:
    backend = hire("hangs loading", "answers", limits=Limits(start=3.0, first_pause=0.01))
    backend.wait_until_ready()
    assert is_gone(lives(tmp_path / "model")[0])


def test_a_program_that_is_not_there_is_a_fault_with_its_reason() -> None:
    backend = WorkerBackend(3, limits=QUICK, command=["/nowhere/to/be/found"])
    backend.start(Start(b"{}", "", None, 0, 0))
    until(lambda: backend.fault is not None and backend.fault.is_lasting)
    assert backend.fault is not None
    assert "worker 3" in backend.fault.reason
    assert "No such file" in backend.fault.reason
    backend.close()


def test_a_worker_says_by_way_of_the_server_why_it_ends(
    hire: Hire, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    hire("fails loading", "answers").wait_until_ready()
    assert "a device is lost" in caplog.text
    assert "ended with exit code 70" in caplog.text
    assert capfd.readouterr().err == ""


def test_a_crash_loop_refuses_with_its_reason_and_ends_when_it_can(
    hire: Hire, tmp_path: Path
) -> None:
    backend = hire("dies", "exits", "exits", "exits", "waits")
    backend.wait_until_ready()
    with pytest.raises(NotReadyError, match=r"times in a row: .*exit code 3"):
        backend.forward(PAIRS)
    fault = backend.fault
    assert fault is not None
    assert fault.is_lasting
    (tmp_path / "model" / GO).touch()
    until(lambda: backend.fault is None)
    assert backend.forward(PAIRS).tolist() == LOGITS


def test_a_worker_that_is_given_up_is_replaced_at_once(hire: Hire, tmp_path: Path) -> None:
    backend = hire("raises", "answers")
    backend.wait_until_ready()
    assert isinstance(backend, RenewableBackend)
    backend.renew("fails on what it has scored before")
    fault = backend.fault
    assert fault is not None
    assert not fault.is_lasting
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert len(lives(tmp_path / "model")) == 2


def test_an_answer_that_is_no_logits_leaves_nobody_waiting(hire: Hire) -> None:
    backend = hire("hangs", limits=Limits(stall=60.0, end=0.1))
    backend.wait_until_ready()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(backend.forward, PAIRS)
        until(lambda: backend._given is not None)
        with pytest.raises(ValueError, match="multiple"):
            backend._take(Answer(b"abc"))
        assert backend._given is not None  # whoever looks after the worker settles it
        backend.close()
        with pytest.raises(ShuttingDownError):
            waiting.result(30)


def test_a_worker_that_is_told_to_end_ends_with_its_server_alone(hire: Hire) -> None:
    backend = hire("answers")
    backend.wait_until_ready()
    pid = backend.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert backend.pid == pid
    backend.close()
    assert is_gone(pid)


def test_every_error_a_worker_meets_is_raised_again_as_its_class() -> None:
    waiting: list[type[TamisError]] = [TamisError]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        error = refusal(Refused(cls.code, "a sentence"))
        assert type(error) is cls
        assert str(error) == "a sentence"
    assert isinstance(refusal(Refused("queue_full", "a sentence")), QueueFullError)
    assert type(refusal(Refused("of tomorrow", "a sentence"))) is TamisError
