import json
from pathlib import Path

import pytest

from tests.integration.serving import Served, Shell

FEW = ("--documents", "3", "--workload", "short", "--rounds", "2")


def test_an_engine_report_is_printed_and_written(
    shell: Shell, tiny_model: Path, tmp_path: Path
) -> None:
    written = tmp_path / "report.json"
    done = shell.run("bench", "--model", tiny_model, *FEW, "--output", written)
    assert done.code == 0, done.err
    figures = dict(line.split("\t", 1) for line in done.out.splitlines())
    assert figures["engine.n_pairs"] == "3"
    engine = json.loads(written.read_text())["engine"]
    assert engine["latency"]["n_requests"] == 2
    assert sum(engine["stage_shares"].values()) == pytest.approx(1)
    assert min(engine["stage_shares"].values()) > 0
    assert 0 <= engine["padding_waste"] < 1
    assert engine["peak_memory"] > 10_000_000
    assert engine["tokens_per_second"] > engine["pairs_per_second"] > 0
    assert 0 < engine["share_of_float32_gemm"] < 1


def test_a_running_server_is_measured_by_callers_at_a_time(shell: Shell, served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}"
    done = shell.run("bench", "--url", url, *FEW, "--concurrency", "1", "--concurrency", "4")
    assert done.code == 0, done.err
    figures = dict(line.split("\t", 1) for line in done.out.splitlines())
    assert figures["server.concurrency_1.latency.n_requests"] == "2"
    assert figures["server.concurrency_4.latency.n_requests"] == "8"
    assert float(figures["server.concurrency_4.pairs_per_second"]) > 0


def test_a_server_that_does_not_answer_is_named(shell: Shell) -> None:
    done = shell.run("bench", "--url", "http://127.0.0.1:1", *FEW)
    assert done.code == 78
    assert "http://127.0.0.1:1 does not rerank" in done.err


def test_a_report_that_cannot_be_written_says_where(shell: Shell, tiny_model: Path) -> None:
    done = shell.run("bench", "--model", tiny_model, *FEW, "--output", "/nowhere/report.json")
    assert done.code == 78
    assert "cannot write /nowhere/report.json" in done.err
