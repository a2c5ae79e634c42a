"""Traces by OpenTelemetry (extra `otel`): a span a request, below it a span a phase; never texts.

A caller's `traceparent` and `tracestate` are taken over, and so is its decision whether to keep
the trace. Spans wait in a bounded queue for a thread of their own: no request waits for them, and
what the queue has no room for is dropped.
"""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import tamis
from tamis.errors import TamisError
from tamis.timing import BatchRun, Phase, PhaseObserver

TRACES_PATH = "/v1/traces"
"""Below a collector's URL, as OTLP over HTTP has it."""
FLUSH_SECONDS = 3.0
"""For what is left at the end: a collector that is away must not hold up the server's."""

Attribute = str | int | float


class Tracing:
    """The traces of one server.

    Args:
        processor: Where spans go.
        sample_ratio: Share of the traces beginning here that are kept.

    Attributes:
        phases: Makes a span of each phase.
    """

    def __init__(self, processor: SpanProcessor, *, sample_ratio: float = 1.0) -> None:
        self._provider = TracerProvider(
            resource=_resource(),
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("tamis", tamis.__version__)
        self._propagator = TraceContextTextMapPropagator()
        self.phases = PhaseSpans(self._tracer)

    @contextmanager
    def request(
        self, method: str, route: str, headers: Mapping[str, str]
    ) -> Generator["RequestSpan"]:
        """The span of a request, around all that is done for it.

        Args:
            method: HTTP's.
            route: The path, which is one of ours.
            headers: Those of `propagated`, as the caller sent them.
        """
        span = self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
        )
        with _current(span):
            yield RequestSpan(span)

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Send what is left, for so long at most."""
        last = Thread(target=self._provider.shutdown, name="tamis-tracing-end", daemon=True)
        last.start()
        last.join(seconds)


class RequestSpan:
    """The span of one request."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str | None:
        """In hex, as callers and collectors write it; None where traces are switched off."""
        context = self._span.get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else None

    def finish(self, status: int, attributes: Mapping[str, Attribute | None]) -> None:
        """Say what became of it.

        Args:
            status: HTTP's; from 500 on it was the server's fault.
            attributes: More to know; those that are None are left out.
        """
        self._span.set_attribute("http.response.status_code", status)
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(name, value)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)


class PhaseSpans(PhaseObserver):
    """A span for each phase of a request that is traced."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def phase(self, name: Phase) -> Generator[None]:
        """Open a span for the phase."""
        if not get_current_span().is_recording():
            yield
            return
        with _current(self._tracer.start_span(name)):
            yield

    def passed(
        self, name: Phase, started: float, ended: float, batches: Sequence[BatchRun] = ()
    ) -> None:
        """Add a span for a past phase, with an event for each batch."""
        if not get_current_span().is_recording():
            return
        span = self._tracer.start_span(name, start_time=_unix_nanoseconds(started))
        for batch in batches:
            attributes = {
                "tamis.n_pairs": batch.n_pairs,
                "tamis.n_tokens": batch.n_tokens,
                "tamis.n_requests": batch.n_requests,
                "tamis.seconds": batch.ended - batch.started,
            }
            span.add_event("batch", attributes, _unix_nanoseconds(batch.started))
        span.end(_unix_nanoseconds(ended))


def open_tracing(endpoint: str, *, sample_ratio: float) -> Tracing:
    """Traces to a collector, of which the URL is given with or without OTLP's path."""
    url = endpoint.rstrip("/").removesuffix(TRACES_PATH) + TRACES_PATH
    return Tracing(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)), sample_ratio=sample_ratio)


def propagated(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers of W3C's Trace Context among those of a request.

    Several of one name are one with commas, as HTTP has it: right for a `tracestate`, and two
    `traceparent` are none.
    """
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name in (b"traceparent", b"tracestate"):
            found.setdefault(name.decode(), []).append(value.decode("latin-1"))
    return {name: ",".join(values) for name, values in found.items()}


@contextmanager
def _current(span: Span) -> Generator[None]:
    """Make it the current span; what is raised is an error, of which the class alone is told."""
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except Exception as error:
            code = error.code if isinstance(error, TamisError) else type(error).__name__
            span.set_attribute("error.type", code)
            span.set_status(StatusCode.ERROR)
            raise


def _resource() -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, and a name where they say none."""
    found = Resource.create()
    if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: "tamis"}))
    return found


def _unix_nanoseconds(moment: float) -> int:
    """When a moment of `time.monotonic()` was, as OpenTelemetry counts."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
