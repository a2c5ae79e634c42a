"""`tamis serve` as a process: ports, signals, exit codes and its log."""

import json
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.serving import Process, Shell, sample, until

CANARY = "canary-7f3a"


def serve(shell: Shell, folder: Path, *arguments: str, **environment: str) -> Process:
    """Serve a folder on a free port, unless told otherwise."""
    port = [] if "TAMIS_SERVER__PORT" in environment else ["--server.port", "0"]
    return shell.serve("--model.name", str(folder), *port, *arguments, **environment)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_port_is_the_variables_and_the_argument_goes_before_it(
    shell: Shell, tiny_model: Path
) -> None:
    ports = [free_port(), free_port()]
    variable = {"TAMIS_SERVER__PORT": str(ports[0])}
    with (
        serve(shell, tiny_model, **variable) as one,
        serve(shell, tiny_model, f"--server.port={ports[1]}", **variable) as other,
    ):
        assert [one.url(), other.url()] == [f"http://127.0.0.1:{port}" for port in ports]


def test_a_port_in_use_is_said_and_ends_it(shell: Shell, tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serve(shell, tiny_model, "--server.port", str(port)) as process:
            assert process.wait() == 78
            assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in process.log
            assert "Traceback" not in process.log


def test_sigterm_under_load_answers_what_was_accepted_and_ends_with_0(
    shell: Shell, tiny_model: Path
) -> None:
    n_callers = 10
    ready = threading.Barrier(n_callers + 1)

    def ask(url: str, caller: int) -> int:
        documents = [f"a bear {caller} {number} " * 20 for number in range(100)]
        with httpx2.Client(base_url=url, timeout=60) as client:
            client.get("/livez")
            ready.wait()
            answer = client.post("/rerank", json={"query": "a panda", "documents": documents})
            assert len(answer.json()["results"]) == len(documents)
            return answer.status_code

    one_pair = ("--scheduler.max-batch-tokens", "1")
    with (
        serve(shell, tiny_model, *one_pair) as process,
        ThreadPoolExecutor(n_callers) as pool,
        httpx2.Client(base_url=process.url()) as probe,
    ):
        answers = [pool.submit(ask, process.url(), caller) for caller in range(n_callers)]
        ready.wait()
        until(lambda: sample(probe.get("/metrics").text, "tamis_queue_requests") == n_callers)
        process.terminate()
        assert [answer.result() for answer in answers] == [200] * n_callers
        assert process.wait() == 0
        assert {event["level"] for event in process.events} == {"info"}
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{probe.base_url}/livez")


@pytest.mark.parametrize(
    ("breakage", "sentence"),
    [
        ({"num_labels": 3, "id2label": {"0": "a", "1": "b", "2": "c"}}, "has 3 labels"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "code that comes with weights"),
    ],
    ids=["labels", "code"],
)
def test_a_model_that_cannot_be_run_ends_the_server_with_78_and_a_sentence(
    shell: Shell, tiny_model: Path, tmp_path: Path, breakage: dict[str, Any], sentence: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_model, folder)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | breakage))
    with serve(shell, folder) as process:
        assert process.wait() == 78
        last = process.events[-1]
        assert (last["level"], last["exit_code"]) == ("critical", 78)
        assert sentence in last["event"]
        assert "Traceback" not in process.log


def test_without_the_model_and_a_network_it_ends_with_69(shell: Shell) -> None:
    with serve(shell, Path("no/such"), "--model.offline") as process:
        assert process.wait() == 69
        last = process.events[-1]
        assert last["event"].startswith("no/such is not on this machine")
        assert (last["code"], last["exit_code"]) == ("hub_unreachable", 69)


def test_a_log_for_people_ends_with_the_sentence_itself(shell: Shell) -> None:
    with serve(shell, Path("no/such"), "--model.offline", "--log.format=console") as process:
        assert process.wait() == 69
        assert process.lines[-1].startswith("tamis: no/such is not on this machine")


def test_a_port_that_is_taken_is_a_line_of_the_log(shell: Shell, tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with shell.serve("--model.name", str(tiny_model), "--server.port", port) as process:
            assert process.wait() == 78
            assert f"cannot listen on 127.0.0.1 port {port}" in process.events[-1]["event"]


def test_a_stop_in_the_middle_of_a_download_does_not_wait_for_it(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent_hub:
        silent_hub.settimeout(60)
        endpoint = f"http://127.0.0.1:{silent_hub.getsockname()[1]}"
        with serve(shell, Path("some/model"), HF_ENDPOINT=endpoint) as process:
            connection, _ = silent_hub.accept()
            with connection:
                process.terminate()
                assert process.wait() == 0
                assert "does not answer" not in process.log
                assert "Traceback" not in process.log


def test_the_log_has_a_json_line_for_each_request_and_no_texts(
    shell: Shell, tiny_model: Path
) -> None:
    bodies: list[Any] = [
        {"query": CANARY, "documents": [CANARY, {"text": CANARY, CANARY: CANARY}]},
        {"query": CANARY, "documents": [CANARY], "model": CANARY},
        {"query": CANARY, "texts": [CANARY], "truncation_direction": CANARY},
        {"query": CANARY, "documents": [CANARY], "top_n": CANARY},
        {"query": CANARY, "documents": [{CANARY: CANARY}]},
        {"query": CANARY, "documents": [f"{CANARY} " * 600], "truncate": False},
        [CANARY],
    ]
    with serve(shell, tiny_model, "--log.level", "debug") as process:
        with httpx2.Client(base_url=process.url(), timeout=60) as client:
            for number, body in enumerate(bodies):
                headers = {"x-request-id": f"id-{number}"}
                client.post(f"/rerank?q={CANARY}", json=body, headers=headers)
            client.post(
                "/rerank", content=f'{{"query": "{CANARY}', headers={"x-request-id": "id-7"}
            )
            for path in ("/livez", "/readyz", "/metrics"):
                client.get(path)
        process.terminate()
        assert process.wait() == 0
    assert CANARY not in process.log
    requests = [event for event in process.events if event["event"] == "request"]
    assert [event["request_id"] for event in requests] == [f"id-{number}" for number in range(8)]
    assert [event["status"] for event in requests] == [200, 200, 422, 422, 422, 422, 400, 400]
    assert [event["dialect"] for event in requests[:4]] == ["native", "jina", "tei", "native"]
    assert requests[0]["n_pairs"] == 2
    for event in requests:
        assert {"method", "path", "status", "seconds", "timestamp", "level"} <= set(event)
