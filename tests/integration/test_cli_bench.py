"""`tamis bench` as a shell runs it."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.serving import TAMIS, Served, Shell, quiet_environment, until

FEW = ("--documents", "3", "--workload", "short", "--rounds", "2")


def figures(text: str) -> dict[str, str]:
    """What was printed, by name."""
    return dict(line.split("\t", 1) for line in text.splitlines())


def test_an_engine_report_is_printed_written_and_drawn(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    written, drawn = tmp_path / "report.json", tmp_path / "figure.png"
    files = ("--output", written, "--plot", drawn)
    done = shell.run("bench", "--model", tiny_model, *FEW, *files)
    assert done.code == 0, done.err
    assert figures(done.out)["engine.n_pairs"] == "3"
    assert drawn.read_bytes().startswith(b"\x89PNG")
    report = json.loads(written.read_text())
    engine, gemm = report["engine"], report["gemm"]
    assert engine["latency"]["n_requests"] == 2
    assert sum(engine["stage_shares"].values()) == pytest.approx(1)
    assert min(engine["stage_shares"].values()) > 0
    assert 0 <= engine["padding_waste"] < 1
    assert 10_000_000 < engine["peak_memory_bytes"] < 1_000_000_000
    assert engine["tokens_per_second"] > engine["pairs_per_second"] > 0
    assert 0 < gemm["share_of_peak"] == gemm["share_of_float32_peak"] < 1
    assert gemm["peaks"]["float32"]["library"] == "numpy"
    assert report["workload"]["seed"] == 2
    assert report["model"]["dtype"] == gemm["dtype"] == "float32"
    assert {"commit", "measured_at_utc", "processor"} <= set(report["environment"])


def test_a_server_of_its_own_is_started_measured_and_ended(shell: Shell, tiny_model: Path) -> None:
    callers = ("--concurrency", "1", "--concurrency", "4", "--concurrency", "1")
    done = shell.run("bench", "--server", "--model", tiny_model, *FEW, *callers)
    assert done.code == 0, done.err
    found = figures(done.out)
    assert found["model.name"] == str(tiny_model)
    assert 0 < float(found["server.seconds_to_ready"]) < 60
    when_ready = int(found["server.peak_memory_when_ready_bytes"])
    assert 10_000_000 < when_ready <= int(found["server.peak_memory_bytes"]) < 1_000_000_000
    assert found["server.concurrency.1.latency.n_requests"] == "2"
    assert found["server.concurrency.4.latency.n_requests"] == "8"
    assert servers_of(tiny_model) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_benchmark_ends_its_server(
    shell: Shell, tiny_model: Path, number: signal.Signals
) -> None:
    many = ("--rounds", "1000", "--documents", "1", "--concurrency", "2")
    process = subprocess.Popen(
        [TAMIS, "bench", "--server", "--model", tiny_model, "--workload", "short", *many],
        env=quiet_environment() | shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: servers_of(tiny_model) != [] or process.poll() is not None)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in out + err
    assert servers_of(tiny_model) == []


def servers_of(model: Path) -> list[str]:
    """Processes of `tamis serve` that run this model."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if b"serve" in command and f"--model.name={model}".encode() in command:
            found.append(path.parent.name)
    return found


def test_a_running_server_is_measured_by_callers_at_a_time(shell: Shell, served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}"
    done = shell.run("bench", "--url", url, *FEW, "--concurrency", "1", "--concurrency", "4")
    assert done.code == 0, done.err
    found = figures(done.out)
    assert found["server.concurrency.1.latency.n_requests"] == "2"
    assert found["server.concurrency.4.latency.n_requests"] == "8"
    assert float(found["server.concurrency.4.pairs_per_second"]) > 0
    assert found["model.dtype"] == "float32"


def test_a_server_that_refuses_is_quoted(shell: Shell, served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}"
    done = shell.run("bench", "--url", url, *FEW, "--documents", "1001")
    assert done.code == 78
    assert "does not rerank: 422" in done.sentence
    assert "at most 1,000" in done.sentence


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "no address"])
def test_a_server_that_does_not_answer_is_named(shell: Shell, url: str) -> None:
    done = shell.run("bench", "--url", url, *FEW)
    assert done.code == 78
    assert "does not rerank" in done.sentence


@pytest.mark.parametrize("kind", [[], ["--server"]], ids=["engine", "server"])
def test_a_model_that_is_not_there_is_one_sentence(shell: Shell, kind: list[str]) -> None:
    done = shell.run("bench", *kind, "--model", "/no/such", *FEW)
    assert done.code == 78
    assert "/no/such" in done.sentence
