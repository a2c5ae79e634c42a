import logging
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from tamis.errors import QueueFullError
from tamis.observability.spans import Tracing, propagated
from tamis.timing import BatchRun

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CANARY = "canary-81fe"


@pytest.fixture
def kept() -> InMemorySpanExporter:
    """Where spans end up."""
    return InMemorySpanExporter()


@pytest.fixture
def tracing(kept: InMemorySpanExporter) -> Iterator[Tracing]:
    """Traces that are kept at once, all of them."""
    tracing = Tracing(SimpleSpanProcessor(kept))
    yield tracing
    tracing.close()


def by_name(kept: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in kept.get_finished_spans()}


def headers(flags: str = "01", **more: str) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"} | more


def test_a_request_is_a_span_with_a_span_for_each_stage_below(
    tracing: Tracing, kept: InMemorySpanExporter
) -> None:
    with tracing.request("POST", "/v1/rerank", {}) as span:
        with tracing.phases.phase("encode"):
            pass
        with tracing.phases.phase("rank"):
            pass
        span.finish(200, {"tamis.n_pairs": 3, "tamis.model": None})
    spans = by_name(kept)
    request = spans["POST /v1/rerank"]
    assert request.kind is SpanKind.SERVER
    assert request.parent is None
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/rerank",
        "http.response.status_code": 200,
        "tamis.n_pairs": 3,
    }
    for name in ("encode", "rank"):
        parent = spans[name].parent
        assert parent is not None
        assert request.context is not None
        assert parent.span_id == request.context.span_id
    assert span.trace_id == format_trace_id(request.context.trace_id)


def test_a_callers_trace_goes_on(tracing: Tracing, kept: InMemorySpanExporter) -> None:
    given = headers(tracestate="vendor=1,other=2")
    with tracing.request("POST", "/rerank", given) as span:
        pass
    (request,) = kept.get_finished_spans()
    assert span.trace_id == TRACE
    assert request.parent is not None
    assert format_span_id(request.parent.span_id) == PARENT
    assert request.context is not None
    assert request.context.trace_state.to_header() == "vendor=1,other=2"


@pytest.mark.parametrize(
    "given",
    [
        {"traceparent": "nonsense"},
        {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
        {"traceparent": f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01"},
        {"tracestate": "vendor=1"},
    ],
)
def test_what_is_no_trace_begins_a_new_one(
    tracing: Tracing, kept: InMemorySpanExporter, given: dict[str, str]
) -> None:
    with tracing.request("POST", "/rerank", given) as span:
        pass
    (request,) = kept.get_finished_spans()
    assert request.parent is None
    assert span.trace_id not in (None, TRACE)


def test_a_caller_who_keeps_no_trace_gets_none_and_the_log_has_its_id_all_the_same(
    tracing: Tracing, kept: InMemorySpanExporter
) -> None:
    with tracing.request("POST", "/rerank", headers("00")) as span, tracing.phases.phase("encode"):
        tracing.phases.passed("queue", 0.0, 1.0)
    assert kept.get_finished_spans() == ()
    assert span.trace_id == TRACE


def test_of_traces_that_begin_here_a_share_is_kept_and_a_callers_decision_holds(
    kept: InMemorySpanExporter,
) -> None:
    tracing = Tracing(SimpleSpanProcessor(kept), sample_ratio=0.0)
    with tracing.request("POST", "/rerank", {}):
        pass
    assert kept.get_finished_spans() == ()
    with tracing.request("POST", "/rerank", headers("01")):
        pass
    assert len(kept.get_finished_spans()) == 1
    tracing.close()


def test_waiting_is_a_span_from_when_it_began_and_its_batches_are_events(
    tracing: Tracing, kept: InMemorySpanExporter
) -> None:
    now, unix = time.monotonic(), time.time_ns()
    run = BatchRun(now - 2.0, now - 1.0, n_pairs=5, n_tokens=60, n_requests=2)
    with tracing.request("POST", "/rerank", {}):
        tracing.phases.passed("queue", now - 3.0, now - 2.0)
        tracing.phases.passed("forward", now - 2.0, now - 1.0, [run])
    spans = by_name(kept)
    for name, seconds_ago in (("queue", 3), ("forward", 2)):
        span = spans[name]
        assert span.start_time == pytest.approx(unix - seconds_ago * 10**9, abs=10**8)
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time - span.start_time == pytest.approx(10**9, abs=10**6)
    (event,) = spans["forward"].events
    assert event.name == "batch"
    assert event.timestamp == pytest.approx(unix - 2 * 10**9, abs=10**8)
    assert event.attributes == {
        "tamis.n_pairs": 5,
        "tamis.n_tokens": 60,
        "tamis.n_requests": 2,
        "tamis.seconds": pytest.approx(1.0),
    }


@pytest.mark.parametrize(
    ("error", "name"),
    [(QueueFullError("no room"), "queue_full"), (ValueError(CANARY), "ValueError")],
)
def test_a_stage_that_fails_says_which_error_and_never_its_text(
    tracing: Tracing, kept: InMemorySpanExporter, error: Exception, name: str
) -> None:
    with (
        pytest.raises(type(error)),
        tracing.request("POST", "/rerank", {}),
        tracing.phases.phase("encode"),
    ):
        raise error
    for span in kept.get_finished_spans():
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == name
        assert CANARY not in span.to_json()


@pytest.mark.parametrize(("status", "code"), [(429, StatusCode.UNSET), (503, StatusCode.ERROR)])
def test_only_the_servers_own_faults_are_errors(
    tracing: Tracing, kept: InMemorySpanExporter, status: int, code: StatusCode
) -> None:
    with tracing.request("POST", "/rerank", {}) as span:
        span.finish(status, {"error.type": "queue_full"})
    (request,) = kept.get_finished_spans()
    assert request.status.status_code is code


def test_a_stage_outside_of_a_request_leaves_no_trace(
    tracing: Tracing, kept: InMemorySpanExporter
) -> None:
    with tracing.phases.phase("encode"):
        tracing.phases.passed("queue", 0.0, 1.0)
    assert kept.get_finished_spans() == ()


class Stuck(SpanExporter):
    """A collector that takes spans and never answers."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.n_spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.n_spans += len(spans)
        self.reached.set()
        self.opened.wait(30)
        return SpanExportResult.SUCCESS


def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_end() -> None:
    stuck = Stuck()
    processor = BatchSpanProcessor(stuck, max_queue_size=8, max_export_batch_size=4)
    tracing = Tracing(processor)
    started = time.monotonic()
    for _ in range(4):
        with tracing.request("POST", "/rerank", {}):
            pass
    assert stuck.reached.wait(30)
    for _ in range(1000):
        with tracing.request("POST", "/rerank", {}), tracing.phases.phase("encode"):
            pass
    tracing.close(0.2)
    assert time.monotonic() - started < 15
    stuck.opened.set()


def test_what_is_left_is_sent_at_the_end(kept: InMemorySpanExporter) -> None:
    tracing = Tracing(BatchSpanProcessor(kept, schedule_delay_millis=60_000))
    with tracing.request("POST", "/rerank", {}):
        pass
    assert kept.get_finished_spans() == ()
    tracing.close(30)
    assert len(kept.get_finished_spans()) == 1


def test_spans_say_whose_they_are(
    kept: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tamis", "reranker-eu"):
        tracing = Tracing(SimpleSpanProcessor(kept))
        with tracing.request("POST", "/rerank", {}):
            pass
        tracing.close()
        assert kept.get_finished_spans()[-1].resource.attributes["service.name"] == name
        kept = InMemorySpanExporter()
        monkeypatch.setenv("OTEL_SERVICE_NAME", "reranker-eu")


def test_only_the_headers_of_a_trace_are_looked_at() -> None:
    given = [
        (b"authorization", b"Bearer secret"),
        (b"tracestate", b"a=1"),
        (b"traceparent", b"00-x"),
        (b"tracestate", b"b=2"),
    ]
    assert propagated(given) == {"tracestate": "a=1,b=2", "traceparent": "00-x"}


def test_nothing_is_logged_for_a_trace_that_is_kept(
    tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), tracing.request("POST", "/rerank", {}):
        pass
    assert caplog.records == []
