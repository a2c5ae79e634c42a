import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tamis.engine.backend import RestartableBackend
from tamis.errors import InferenceError, ModelNotFoundError, NotReadyError, ShuttingDownError
from tamis.workers.backend import WorkerBackend
from tamis.workers.channel import Start, WorkDone
from tamis.workers.supervisor import Supervisor, WorkerTimeouts
from tests.fake_worker import GO, lives
from tests.integration.serving import until
from tests.processes import is_gone
from tests.unit.workers.conftest import LOGITS, PAIRS, QUICK, StartWorker


def test_closing_ends_the_worker(start_worker: StartWorker) -> None:
    backend = start_worker("answers")
    backend.supervisor.wait_until_ready()
    pid = backend.supervisor.pid
    assert pid is not None
    backend.close()
    assert is_gone(pid)
    with pytest.raises(ShuttingDownError):
        backend.forward(PAIRS)
    backend.close()


def test_closing_stops_a_worker_that_hangs_and_fails_its_batch(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    timeouts = WorkerTimeouts(stall_seconds=60.0, exit_seconds=0.1)
    backend = start_worker("hangs", timeouts=timeouts)
    backend.supervisor.wait_until_ready()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(backend.forward, PAIRS)
        until(lambda: backend.supervisor._batch is not None)
        backend.close()
        with pytest.raises(ShuttingDownError):
            waiting.result(30)
    assert is_gone(lives(tmp_path / "model")[0])


def test_closing_ends_the_wait_for_the_first_worker(start_worker: StartWorker) -> None:
    backend = start_worker("hangs loading")
    threading.Timer(0.05, backend.supervisor.begin_close).start()
    with pytest.raises(ShuttingDownError):
        backend.supervisor.wait_until_ready()


def test_one_that_was_never_started_can_be_closed() -> None:
    backend = WorkerBackend(Supervisor(0))
    backend.close()
    backend.supervisor.start(Start(b"{}", "", None, 0, 0))
    assert backend.supervisor.pid is None


def test_an_idle_worker_that_is_killed_is_replaced(start_worker: StartWorker) -> None:
    restarts: list[int] = []
    backend = start_worker("answers", restarts=restarts)
    backend.supervisor.wait_until_ready()
    assert backend.supervisor.pid is not None
    os.kill(backend.supervisor.pid, signal.SIGKILL)
    until(lambda: bool(restarts))
    until(lambda: backend.fault is None)
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert len(restarts) == 1


def test_an_idle_worker_that_is_stopped_is_replaced(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    backend = start_worker("answers")
    backend.supervisor.wait_until_ready()
    stopped = backend.supervisor.pid
    assert stopped is not None
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: len(lives(tmp_path / "model")) == 2)
    assert is_gone(stopped)


def test_a_worker_that_only_raises_is_replaced(start_worker: StartWorker) -> None:
    backend = start_worker("raises", "answers")
    backend.supervisor.wait_until_ready()
    for _ in range(5):
        with pytest.raises(InferenceError):
            backend.forward(PAIRS)
    until(lambda: backend.fault is None and backend.supervisor._n_failed_batches == 0)
    assert backend.forward(PAIRS).tolist() == LOGITS


def test_a_model_that_is_refused_at_first_is_the_error_it_was(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    backend = start_worker("refuses")
    with pytest.raises(ModelNotFoundError, match="no such model"):
        backend.supervisor.wait_until_ready()
    backend.close()
    assert len(lives(tmp_path / "model")) == 1


def test_a_worker_that_ends_while_loading_is_tried_again(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    backend = start_worker("exits", "exits", "answers")
    assert backend.supervisor.wait_until_ready().facts.name == "fake"
    assert len(lives(tmp_path / "model")) == 3
    assert backend.forward(PAIRS).tolist() == LOGITS


def test_a_worker_that_hangs_while_loading_is_replaced(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    backend = start_worker(
        "hangs loading",
        "answers",
        timeouts=WorkerTimeouts(start_seconds=3.0, initial_backoff_seconds=0.01),
    )
    backend.supervisor.wait_until_ready()
    assert is_gone(lives(tmp_path / "model")[0])


def test_a_program_that_is_not_there_is_a_fault_with_its_reason() -> None:
    backend = WorkerBackend(Supervisor(3, timeouts=QUICK, command=["/nowhere/to/be/found"]))
    backend.supervisor.start(Start(b"{}", "", None, 0, 0))
    until(lambda: backend.fault is not None and backend.fault.is_lasting)
    assert backend.fault is not None
    assert "worker 3" in backend.fault.reason
    assert "No such file" in backend.fault.reason
    backend.close()


def test_a_worker_says_by_way_of_the_server_why_it_ends(
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    start_worker("fails loading", "answers").supervisor.wait_until_ready()
    assert "a device is lost" in caplog.text
    assert "exit code 70" in caplog.text
    assert capfd.readouterr().err == ""


def test_a_crash_loop_refuses_with_its_reason_until_a_worker_comes_up(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    backend = start_worker("dies", "exits", "exits", "exits", "waits")
    backend.supervisor.wait_until_ready()
    with pytest.raises(NotReadyError, match=r"times in a row: .*exit code 3"):
        backend.forward(PAIRS)
    fault = backend.fault
    assert fault is not None
    assert fault.is_lasting
    (tmp_path / "model" / GO).touch()
    until(lambda: backend.fault is None)
    assert backend.forward(PAIRS).tolist() == LOGITS


def test_a_restart_on_request_replaces_the_worker_at_once(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    backend = start_worker("raises", "answers")
    backend.supervisor.wait_until_ready()
    assert isinstance(backend, RestartableBackend)
    backend.restart("fails on what it has scored before")
    fault = backend.fault
    assert fault is not None
    assert not fault.is_lasting
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert len(lives(tmp_path / "model")) == 2


def test_an_answer_that_is_no_logits_leaves_nobody_waiting(start_worker: StartWorker) -> None:
    backend = start_worker("hangs", timeouts=WorkerTimeouts(stall_seconds=60.0, exit_seconds=0.1))
    backend.supervisor.wait_until_ready()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(backend.forward, PAIRS)
        until(lambda: backend.supervisor._batch is not None)
        with pytest.raises(ValueError, match="multiple"):
            backend.supervisor._handle(WorkDone(b"abc"))
        assert backend.supervisor._batch is not None  # the supervisor settles it
        backend.close()
        with pytest.raises(ShuttingDownError):
            waiting.result(30)


def test_a_worker_that_is_told_to_end_ends_with_its_server_alone(start_worker: StartWorker) -> None:
    backend = start_worker("answers")
    backend.supervisor.wait_until_ready()
    pid = backend.supervisor.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert backend.supervisor.pid == pid
    backend.close()
    assert is_gone(pid)


def test_a_worker_logs_no_more_than_errors(
    start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    start_worker("logs the worst").supervisor.wait_until_ready()
    (record,) = [record for record in caplog.records if "all is lost" in record.getMessage()]
    assert record.levelno == logging.ERROR


def test_a_connection_that_is_lost_in_loading_is_told_as_a_failure(
    start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    backend = start_worker("answers", "loses a connection", "answers")
    backend.supervisor.wait_until_ready()
    assert backend.supervisor.pid is not None
    os.kill(backend.supervisor.pid, signal.SIGKILL)
    until(lambda: "the hub hung up" in caplog.text)
    until(lambda: backend.fault is None)
