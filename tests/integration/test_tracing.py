"""Traces of a real server, at a real collector's other end of the line."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tamis.settings import load_settings
from tests.integration.collector import Collector, attributes_of, collecting
from tests.integration.serving import Process, Shell, until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CANARY = "canary-d41c"
STAGES = {"decode", "cache", "encode", "queue", "forward", "rank", "respond"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on loopback."""
    with collecting() as collector:
        yield collector


def traced(folder: Path, collector: Collector, *more: str) -> Process:
    """A server that sends its traces to a collector."""
    return Process(
        f"--model.name={folder}",
        "--model.threads=1",
        "--server.port=0",
        f"--telemetry.otlp-endpoint={collector.url}",
        *more,
    )


def ask(url: str, **headers: str) -> httpx2.Response:
    body = {"query": f"what is {CANARY}", "documents": [f"{CANARY} a bear", "a panda", "a cat"]}
    return httpx2.post(f"{url}/v1/rerank", json=body, headers=headers, timeout=60)


def test_a_request_leaves_a_trace_below_its_callers_and_in_the_log(
    tiny_model: Path, collector: Collector
) -> None:
    with traced(tiny_model, collector) as process:
        answer = ask(process.url(), traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
        assert answer.status_code == 200
        process.terminate()  # the spans are sent at the end, if not before
        assert process.wait() == 0
    assert set(collector.paths) == {"/v1/traces"}
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"POST /v1/rerank", *STAGES}
    request = spans.pop("POST /v1/rerank")
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert request.trace_state == "vendor=1"
    found = attributes_of(request)
    assert found["http.response.status_code"] == 200
    assert found["tamis.request_id"] == answer.headers["x-request-id"]
    assert found["tamis.dialect"] == "native"
    assert found["tamis.n_pairs"] == 3
    assert found["tamis.n_cached"] == 0
    assert found["tamis.n_tokens"] == answer.json()["usage"]["total_tokens"]
    assert all(span.parent_span_id == request.span_id for span in spans.values())
    assert all(span.trace_id == request.trace_id for span in spans.values())
    for span in spans.values():
        assert request.start_time_unix_nano <= span.start_time_unix_nano + 10**6
        assert span.end_time_unix_nano <= request.end_time_unix_nano + 10**6
    (event,) = spans["forward"].events
    assert event.name == "batch"
    (line,) = [event for event in process.events if event["event"] == "request"]
    assert line["trace_id"] == TRACE


def test_no_text_of_a_callers_is_in_a_trace(tiny_model: Path, collector: Collector) -> None:
    with traced(tiny_model, collector) as process:
        url = process.url()
        assert ask(url).status_code == 200
        bad = httpx2.post(f"{url}/rerank", json={"query": CANARY, "documents": {"a": CANARY}})
        assert bad.status_code >= 400
        process.terminate()
        process.wait()
    sent = b"".join(collector.bodies)
    assert b"POST /rerank" in sent
    assert CANARY.encode() not in sent


def test_an_error_is_told_by_its_code(tiny_model: Path, collector: Collector) -> None:
    with traced(tiny_model, collector) as process:
        answer = httpx2.post(f"{process.url()}/rerank", json={"query": "a"})
        assert answer.status_code == 400
        process.terminate()
        process.wait()
    (request,) = [span for span in collector.spans if span.name == "POST /rerank"]
    assert attributes_of(request)["error.type"] == answer.json()["code"]
    assert attributes_of(request)["http.response.status_code"] == 400


def test_a_collector_that_is_away_or_refuses_costs_spans_and_no_answers(
    tiny_model: Path, collector: Collector
) -> None:
    collector.status = 500
    with traced(tiny_model, collector) as process:
        url = process.url()
        assert Counter(ask(url).status_code for _ in range(20)) == {200: 20}
        process.terminate()
        assert process.wait() == 0


def test_probes_metrics_and_other_paths_leave_no_trace(
    tiny_model: Path, collector: Collector
) -> None:
    with traced(tiny_model, collector) as process:
        url = process.url()
        for path in ("/livez", "/metrics", "/v1/limits", "/rerank", "/nowhere"):
            httpx2.get(f"{url}{path}")
        assert ask(url).status_code == 200
        process.terminate()
        process.wait()
    assert {span.name for span in collector.spans} == {"POST /v1/rerank", *STAGES}


def test_a_share_of_traces_can_be_kept(tiny_model: Path, collector: Collector) -> None:
    with traced(tiny_model, collector, "--telemetry.sample-ratio=0") as process:
        url = process.url()
        assert ask(url).status_code == 200
        assert ask(url, traceparent=f"00-{TRACE}-{PARENT}-01").status_code == 200
        process.terminate()
        process.wait()
    requests = [span for span in collector.spans if span.name == "POST /v1/rerank"]
    assert [span.trace_id.hex() for span in requests] == [TRACE]


def test_without_the_extra_the_setting_is_refused_in_a_sentence(
    shell: Shell, tmp_path: Path
) -> None:
    blocked = tmp_path / "opentelemetry"
    blocked.mkdir()
    (blocked / "__init__.py").write_text("raise ImportError('not installed here')\n")
    path = f"{tmp_path}:{shell.environment['PYTHONPATH']}"
    done = shell.run(
        *("serve", "--server.port=0", "--telemetry.otlp-endpoint=http://localhost:4318"),
        PYTHONPATH=path,
    )
    assert done.code == 78
    assert "pip install 'tamis[otel]'" in done.sentence


def test_without_the_setting_nothing_of_opentelemetry_is_needed(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not installed here')\n")
    arguments = (f"--model.name={tiny_model}", "--model.threads=1", "--server.port=0")
    with Process(*arguments, environment={"PYTHONPATH": str(tmp_path)}) as process:
        assert ask(process.url()).status_code == 200


def test_the_variable_that_clusters_set_everywhere_turns_nothing_on(
    tiny_model: Path, collector: Collector
) -> None:
    arguments = (f"--model.name={tiny_model}", "--model.threads=1", "--server.port=0")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with Process(*arguments, environment=environment) as process:
        assert ask(process.url()).status_code == 200
        process.terminate()
        process.wait()
    assert collector.paths == []


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://collector", ""])
def test_an_endpoint_that_is_no_url_is_refused(shell: Shell, endpoint: str) -> None:
    done = shell.run("serve", "--server.port=0", f"--telemetry.otlp-endpoint={endpoint}")
    assert done.code == 78
    assert "telemetry.otlp_endpoint" in done.sentence


def test_traces_are_off_unless_asked_for() -> None:
    assert load_settings().telemetry.otlp_endpoint is None


def test_spans_arrive_while_the_server_runs(tiny_model: Path, collector: Collector) -> None:
    with Process(
        f"--model.name={tiny_model}",
        "--model.threads=1",
        "--server.port=0",
        f"--telemetry.otlp-endpoint={collector.url}/v1/traces",
        environment={"OTEL_BSP_SCHEDULE_DELAY": "50"},
    ) as process:
        assert ask(process.url()).status_code == 200
        until(lambda: any(span.name == "POST /v1/rerank" for span in collector.spans))
    assert set(collector.paths) == {"/v1/traces"}
