"""Rows 12, 13, 14 and 43: workers that are killed, stop, hang or never start."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tamis.settings import Settings
from tests.fake_worker import COMMAND, GO, lives, write_plan
from tests.integration.serving import (
    NO_CACHE,
    Gate,
    Served,
    Shell,
    sample,
    serving,
    serving_fake,
    serving_folder,
    until,
)
from tests.processes import is_gone

DOCUMENTS = ["a bear", "the capital of france", "water boils"]
Serve = Callable[..., Served]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny model, of which doubles' workers use the tokenizer alone."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """A server whose workers behave as a plan says."""
    with ExitStack() as stack:

        def start(*plan: str, n_workers: int = 1, ready: bool = True, **more: Any) -> Served:
            write_plan(folder, *plan)
            sections = NO_CACHE | {
                "model": {"name": str(folder)},
                "scheduler": {"workers": n_workers, "stall_seconds": 0.5},
            }
            sections |= more
            server: AbstractContextManager[Served] = serving(
                Settings.model_validate(sections), command=COMMAND, ready=ready
            )
            return stack.enter_context(server)

        yield start


def scores(server: Served, documents: Sequence[str] = DOCUMENTS) -> dict[int, float]:
    """The logits of an answer by index."""
    response = server.rerank("what is a panda", documents)
    assert response.status_code == 200, response.text
    return {result["index"]: result["score"] for result in response.json()["results"]}


def is_ready(server: Served) -> bool:
    return server.client.get("/readyz").status_code == 200


def test_row_12_a_batch_whose_worker_dies_is_answered_by_the_next_one(
    serve: Serve, folder: Path
) -> None:
    server = serve("dies", "answers")
    first = scores(server)
    assert scores(server) == first
    assert len(lives(folder)) == 2
    assert server.metric("tamis_worker_restarts_total") == 1
    assert server.metric("tamis_errors_total") == 0


def test_row_12_a_worker_that_is_killed_makes_the_server_unready_until_the_next_is_up(
    serve: Serve, folder: Path
) -> None:
    server = serve("answers", "waits")
    before = scores(server)
    os.kill(lives(folder)[0], signal.SIGKILL)
    until(lambda: not is_ready(server))
    down = server.client.get("/readyz").json()
    assert down["status"] == "down"
    assert "signal 9" in down["reason"]
    assert server.metric("tamis_workers_ready") == 0
    assert server.client.get("/livez").status_code == 200  # this process is well
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(scores, server)  # admitted, and kept until there is a worker
        until(lambda: server.metric("tamis_queue_requests") == 1)
        (folder / GO).touch()
        assert waiting.result(30) == before
    until(lambda: is_ready(server))
    assert server.metric("tamis_workers_ready") == 1


def test_what_a_worker_that_found_other_files_computes_is_not_kept_for_the_old_ones(
    serve: Serve, folder: Path
) -> None:
    server = serve("answers", "has other files", cache={})
    cached = [cached_pairs(server) for _ in range(2)]
    os.kill(lives(folder)[0], signal.SIGKILL)
    until(lambda: server.metric("tamis_worker_restarts_total") == 1 and is_ready(server))
    cached += [cached_pairs(server, [*DOCUMENTS, "new"]) for _ in range(2)]
    assert cached == [0, len(DOCUMENTS), 0, 0]
    assert server.metric("tamis_cache_entries", store="memory") == len(DOCUMENTS)


def cached_pairs(server: Served, documents: Sequence[str] = DOCUMENTS) -> int:
    usage: dict[str, int] = server.rerank("what is a panda", documents).json()["usage"]
    return usage["cached_pairs"]


def test_row_12_of_two_workers_one_is_killed_and_the_other_answers(
    serve: Serve, folder: Path
) -> None:
    server = serve("answers", "answers", "waits", n_workers=2)
    before = scores(server)
    assert server.metric("tamis_workers_ready") == 2
    os.kill(lives(folder)[0], signal.SIGKILL)
    until(lambda: server.client.get("/readyz").json()["status"] == "degraded")
    response = server.client.get("/readyz")
    assert response.status_code == 200
    assert "worker 0" in response.json()["reason"]
    assert server.metric("tamis_degraded") == 1
    assert [scores(server) for _ in range(5)] == [before] * 5
    (folder / GO).touch()
    until(lambda: server.client.get("/readyz").json()["status"] == "ready")
    assert server.metric("tamis_degraded") == 0


@pytest.mark.parametrize("busy", [False, True])
def test_row_12_a_worker_that_is_stopped_is_replaced(
    serve: Serve, folder: Path, *, busy: bool
) -> None:
    server = serve("answers")
    before = scores(server)
    stopped = lives(folder)[0]
    os.kill(stopped, signal.SIGSTOP)
    if not busy:
        until(lambda: len(lives(folder)) == 2)
    assert scores(server) == before
    assert is_gone(stopped)


def test_row_12_documents_that_kill_every_worker_fail_alone(serve: Serve) -> None:
    server = serve("dies on long")
    before = scores(server)
    response = server.rerank("what is a panda", ["fine " * 90])
    assert response.status_code == 422
    assert response.json()["code"] == "unscorable_document"
    assert "fine" not in response.text
    assert scores(server) == before


def test_row_12_a_document_that_kills_workers_fails_alone_among_others(serve: Serve) -> None:
    server = serve("dies on long")
    texts = ["a bear", "fine " * 90, "paris", "water boils", "himmel"]
    expected = {n: scores(server, [texts[n]])[0] for n in (0, 2, 3, 4)}
    response = server.rerank("what is a panda", texts, partial=True)
    assert response.status_code == 200, response.text
    found = {result["index"]: result for result in response.json()["results"]}
    assert found[1]["error"]["code"] == "unscorable_document"
    assert {n: found[n]["score"] for n in expected} == expected


def test_row_12_a_worker_whose_model_only_fails_is_replaced_and_its_request_answered(
    serve: Serve, folder: Path
) -> None:
    server = serve("raises", "answers")
    first = scores(server)
    assert scores(server) == first
    assert len(lives(folder)) == 2
    assert server.metric("tamis_errors_total") == 0


def test_row_15_workers_that_are_told_to_end_answer_what_was_accepted(
    serve: Serve, folder: Path
) -> None:
    """A supervisor may send its signal to every process of the server."""
    server = serve("answers")
    os.kill(lives(folder)[0], signal.SIGTERM)
    scores(server)
    assert len(lives(folder)) == 1
    server.stop()
    until(lambda: is_gone(lives(folder)[0]))


def test_row_12_a_worker_ends_with_its_server_even_if_both_get_no_time(
    shell: Shell, tiny_model: Path
) -> None:
    with shell.serve(
        *("--model.name", str(tiny_model), "--server.port", "0", "--workers", "1")
    ) as process:
        process.url()
        (worker,) = children(process._process.pid)
        assert not is_gone(worker)
        os.kill(worker, signal.SIGSTOP)
        process._process.kill()
        process.wait()
        until(lambda: is_gone(worker))
        assert is_gone(worker)


def test_row_12_a_worker_that_hangs_ends_with_its_server(tmp_path: Path) -> None:
    """The server's process dies in the middle of a batch that never ends."""
    program = tmp_path / "server.py"
    program.write_text(ORPHANING)
    folder = write_plan(tmp_path / "model", "hangs")
    command = [sys.executable, str(program), str(folder), *COMMAND]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"PYTHONPATH": here()})
    until(lambda: is_gone(lives(folder)[0]))


def test_row_13_a_deadlocked_model_fails_liveness_and_new_callers_are_refused() -> None:
    gate = Gate()
    with (
        serving_fake(gate, scheduler={"stall_seconds": 0.2}) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        stuck = pool.submit(server.rerank, "q", ["a"])
        assert gate.reached.wait(30)
        until(lambda: server.client.get("/livez").status_code == 503)
        stalled = server.client.get("/livez").json()
        assert stalled["status"] == "stalled"
        assert "no progress" in stalled["reason"]
        assert server.client.get("/readyz").status_code == 503
        refused = server.rerank("q", ["b"])
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert "no progress" in refused.json()["error"]
        gate.opened.set()
        assert stuck.result(30).status_code == 200
        assert server.client.get("/livez").status_code == 200
        assert server.client.get("/readyz").status_code == 200


def test_row_13_a_server_whose_model_hangs_ends_all_the_same(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(HANGING)
    command = [sys.executable, str(program), "--server.port=0", "--scheduler.stall-seconds=0.2"]
    command += ["--server.drain-seconds=1", "--server.drain-delay-seconds=0"]
    environment = os.environ | {"PYTHONPATH": here()}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        found = next(re.finditer(r"http://[\d.:]+\d", process.stderr.readline()))
        with httpx2.Client(base_url=found[0], timeout=60) as client, ThreadPoolExecutor(1) as pool:
            until(lambda: client.get("/readyz").status_code == 200)
            stuck = pool.submit(client.post, "/rerank", json={"query": "q", "documents": ["a"]})
            until(lambda: client.get("/livez").status_code == 503)
            process.terminate()
            assert stuck.result(30).status_code == 503
        assert process.wait(30) == 70


def test_row_14_a_crash_loop_is_503_with_its_reason_and_no_storm_of_processes(
    serve: Serve, folder: Path
) -> None:
    server = serve("answers", "exits")
    scores(server)
    os.kill(lives(folder)[0], signal.SIGKILL)
    until(lambda: not is_ready(server))
    kept_waiting = server.rerank("what is a panda", DOCUMENTS)
    refused_at_once = server.rerank("what is a panda", DOCUMENTS)
    for response in (kept_waiting, refused_at_once):
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert "exit code 3" in response.json()["error"]
        assert int(response.headers["retry-after"]) >= 1
    assert "times in a row" in server.client.get("/readyz").json()["reason"]
    assert len(lives(folder)) <= 5  # at once, after 0.5 s, after 1 s ...
    write_plan(folder, "answers")
    until(lambda: is_ready(server))
    scores(server)


def test_row_14_a_first_start_that_crashes_is_told_and_tried_again(
    serve: Serve, folder: Path
) -> None:
    server = serve("exits", "exits", "waits", ready=False)
    until(lambda: "exit code 3" in server.client.get("/readyz").json().get("reason", ""))
    assert server.client.get("/readyz").status_code == 503
    refused = server.rerank("q", ["a"])
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    assert "exit code 3" in refused.json()["error"]
    (folder / GO).touch()
    until(lambda: is_ready(server))
    scores(server)
    assert server.failures == []


def test_row_14_a_model_that_is_refused_by_the_first_worker_ends_the_server(
    serve: Serve, folder: Path
) -> None:
    server = serve("refuses")
    assert server.life.state == "failed"
    assert str(server.life.failure) == "there is no such model"
    assert server.failures == ["load"]
    assert len(lives(folder)) == 1


def test_row_43_with_two_workers_metrics_are_the_sums_of_both(tiny_model: Path) -> None:
    n_requests = 24
    with serving_folder(tiny_model, scheduler={"workers": 2}) as server:
        with ThreadPoolExecutor(8) as pool:
            texts = [[f"{text} {n}" for text in DOCUMENTS] for n in range(n_requests)]
            assert len(list(pool.map(scores, [server] * n_requests, texts))) == n_requests
        text = server.client.get("/metrics").text
    n_pairs = n_requests * len(DOCUMENTS)
    assert sample(text, "tamis_requests_total", dialect="native", status="200") == n_requests
    assert sample(text, "tamis_pairs_total") == n_pairs
    assert sample(text, "tamis_batch_pairs_sum") == n_pairs
    assert sample(text, "tamis_batch_tokens_sum") == sample(text, "tamis_tokens_total")
    assert sample(text, "tamis_workers_ready") == 2
    assert sample(text, "tamis_worker_restarts_total") == 0


def test_a_server_that_ends_leaves_no_worker_behind(serve: Serve, folder: Path) -> None:
    server = serve("answers", n_workers=2)
    pids = lives(folder)
    assert len(pids) == 2
    assert not any(is_gone(pid) for pid in pids)
    server.stop()
    until(lambda: all(is_gone(pid) for pid in pids))
    assert all(is_gone(pid) for pid in pids)


def children(pid: int) -> list[int]:
    """Processes that a process has started, by any of its threads."""
    tasks = Path(f"/proc/{pid}/task")
    return [
        int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()
    ]


def here() -> str:
    """Where this process finds its modules."""
    return os.pathsep.join(path for path in sys.path if path)


HANGING = """
import sys
from tamis.cli.serve import run
from tamis.settings import load_settings
from tests.fake_worker import Misbehaving, model_on

run(load_settings(sys.argv[1:]), load=lambda _: model_on(Misbehaving("hangs")))
"""
ORPHANING = """
import logging, os, signal, sys, threading
from pathlib import Path
from tamis.testing import WordTokenizer
from tamis.workers.backend import WorkerBackend
from tamis.workers.channel import Start
from tamis.workers.supervisor import Supervisor

folder, *command = sys.argv[1:]
supervisor = Supervisor(0, command=command)
supervisor.start(Start(b"{}", folder, None, logging.ERROR, os.getpid()))
supervisor.wait_until_ready()
pairs = WordTokenizer().encode("q", ["a"])
threading.Thread(target=WorkerBackend(supervisor).forward, args=(pairs,), daemon=True).start()
while supervisor._batch is None:
    pass
os._exit(0)
"""
