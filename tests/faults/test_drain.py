"""Row 15: SIGTERM under load."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
import uvicorn

from tamis.server.draining import STUCK_EXIT_CODE, DrainingServer
from tests.faults.raw import head, whole
from tests.integration.serving import Gate, Process, Shell, serving_fake, until

N_CALLERS = 6
DELAY_SECONDS = "1.5"


def serve(shell: Shell, folder: Path, **environment: str) -> Process:
    """A real process on a free port."""
    options = ("--model.name", str(folder), "--server.port", "0", "--model.threads", "1")
    return shell.serve(*options, **environment)


class Balancer:
    """Callers in a closed loop, who are sent elsewhere once `/readyz` says no."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.unready_at: float | None = None
        self.statuses: list[int] = []
        self.answered_while_unready = 0

    def watch(self) -> None:
        """Probe until it is unready."""
        with httpx2.Client(base_url=self._url, timeout=30) as client:
            while client.get("/readyz").status_code == 200:
                time.sleep(0.01)
            assert client.get("/readyz").json()["status"] == "draining"
        self.unready_at = time.monotonic()

    def call(self) -> None:
        """Ask until the probe has known for a while that it is unready: probes have intervals."""
        documents = [f"a bear {number} " * 10 for number in range(20)]
        with httpx2.Client(base_url=self._url, timeout=30) as client:
            while self.unready_at is None or time.monotonic() < self.unready_at + 0.5:
                body = {"query": "a panda", "documents": documents}
                answer = client.post("/rerank", json=body)
                self.statuses.append(answer.status_code)
                if self.unready_at is not None and answer.headers.get("connection") == "close":
                    self.answered_while_unready += 1


def test_row_15_sigterm_under_load_drops_nothing_and_readyz_turns_first(
    shell: Shell, tiny_model: Path
) -> None:
    delay = {"TAMIS_SERVER__DRAIN_DELAY_SECONDS": DELAY_SECONDS}
    with serve(shell, tiny_model, **delay) as process:
        balancer = Balancer(process.url())
        with ThreadPoolExecutor(N_CALLERS + 1) as pool:
            tasks = [pool.submit(balancer.watch)]
            tasks += [pool.submit(balancer.call) for _ in range(N_CALLERS)]
            until(lambda: len(balancer.statuses) > 2 * N_CALLERS)
            started = time.monotonic()
            process.terminate()
            for task in tasks:
                task.result()
        assert process.wait() == 0
        assert time.monotonic() - started >= float(DELAY_SECONDS)
        assert balancer.unready_at is not None
        assert balancer.unready_at - started < 1.0
        assert set(balancer.statuses) == {200}
        assert balancer.answered_while_unready >= N_CALLERS


def test_row_15_a_second_signal_ends_the_waiting_for_balancers(
    shell: Shell, tiny_model: Path
) -> None:
    with serve(shell, tiny_model, TAMIS_SERVER__DRAIN_DELAY_SECONDS="600") as process:
        url = process.url()
        process.terminate()
        until(lambda: httpx2.get(f"{url}/readyz").status_code == 503)
        process.terminate()
        assert process.wait() == 0


def test_row_15_an_interrupt_does_not_wait_for_balancers(shell: Shell, tiny_model: Path) -> None:
    with serve(shell, tiny_model, TAMIS_SERVER__DRAIN_DELAY_SECONDS="600") as process:
        process.url()
        process._process.send_signal(signal.SIGINT)
        assert process.wait() == 0


@pytest.mark.parametrize("field", ["documents", "texts"])
def test_row_15_what_cannot_be_finished_in_time_is_503_before_the_end(field: str) -> None:
    gate = Gate()
    with (
        serving_fake(gate, server={"drain_seconds": 1}) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        ask = server.client.post
        running = pool.submit(ask, "/rerank", json={"query": "q", field: ["a"]})
        assert gate.reached.wait(60)
        waiting = pool.submit(ask, "/rerank", json={"query": "q", field: ["b"]})
        until(lambda: server.metric("tamis_queue_requests") == 1)
        server.stop()
        answers = [running.result(), waiting.result()]
        gate.opened.set()
        for answer in answers:
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1


def server_with(announced: list[str], ended: list[int], *, asked: bool) -> DrainingServer:
    """A server that is not run."""

    def announce() -> bool:
        announced.append("unready")
        return asked

    async def app(*_: object) -> None:
        raise AssertionError("nobody calls it")

    return DrainingServer(
        uvicorn.Config(app, timeout_graceful_shutdown=1, log_config=None),
        announce=announce,
        is_stuck=lambda: False,
        delay_seconds=600,
        end=ended.append,
    )


def test_row_15_before_anything_was_served_nobody_is_waited_for() -> None:
    announced: list[str] = []
    server = server_with(announced, [], asked=False)
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit
    assert announced == ["unready"]


def test_row_15_a_model_that_never_comes_back_does_not_hold_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    class Timer(threading.Timer):
        """One that is up at once."""

        def __init__(self, interval: float, function: object) -> None:
            waited.append(interval)
            super().__init__(0.0, function)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(threading, "Timer", Timer)
    ended: list[int] = []
    server = server_with([], ended, asked=True)
    server.handle_exit(signal.SIGTERM, None)
    assert not server.should_exit
    until(lambda: ended == [STUCK_EXIT_CODE])
    assert waited == [600 + 1 + 10]
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit
    assert len(waited) == 1


def test_row_15_answers_that_nobody_takes_end_with_the_server_and_in_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    long = json.dumps({"query": "q", "documents": [{"text": "a", "x": "x" * 7_000_000}]}).encode()
    short = head(start="GET /openapi.json HTTP/1.1")
    with serving_fake(server={"drain_seconds": 1}) as server, ExitStack() as stack:
        state = server.server.server_state
        for data in (whole(long), whole(long), short * 400):
            caller = stack.enter_context(socket.socket())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", server.port))
            caller.sendall(data)
        until(lambda: sum(one.flow.write_paused for one in list(state.connections)) == 3)
        server.stop()
        until(lambda: not state.tasks)
    assert "Cancel 3 running task(s)" in caplog.text
    assert "Exception in ASGI application" not in caplog.text
