from collections.abc import Iterator

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tamis.observability.spans import Tracing
from tamis.server.middleware.tracing import TracingMiddleware
from tamis.types import Usage

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def kept() -> InMemorySpanExporter:
    """Where spans end up."""
    return InMemorySpanExporter()


@pytest.fixture
def tracing(kept: InMemorySpanExporter) -> Iterator[Tracing]:
    """Traces that are kept at once."""
    tracing = Tracing(SimpleSpanProcessor(kept))
    yield tracing
    tracing.close()


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers 200, and leaves what routes leave."""
    usage = Usage(n_pairs=3, n_tokens=40, n_truncated=0)
    scope["seen"] = structlog.contextvars.get_contextvars().get("trace_id")
    scope["state"] |= {"request_id": "r", "dialect": "native", "model": "m", "usage": usage}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application with a bug."""
    raise ValueError("bad")


async def call(
    app: ASGIApp, tracing: Tracing, path: str = "/rerank", method: str = "POST"
) -> Scope:
    """Send a request that belongs to a trace."""
    traceparent = f"00-{TRACE}-{PARENT}-01".encode()
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(b"traceparent", traceparent)],
        "state": {},
    }

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_: Message) -> None:
        """Nobody listens."""

    await TracingMiddleware(app, tracing=tracing, paths={"/rerank"})(scope, receive, send)
    return scope


async def test_what_the_route_leaves_is_on_the_span(
    tracing: Tracing, kept: InMemorySpanExporter
) -> None:
    await call(answering, tracing)
    (span,) = kept.get_finished_spans()
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/rerank",
        "http.response.status_code": 200,
        "tamis.request_id": "r",
        "tamis.dialect": "native",
        "tamis.model": "m",
        "tamis.n_pairs": 3,
        "tamis.n_tokens": 40,
        "tamis.n_cached": 0,
    }


async def test_log_lines_of_the_request_have_its_trace(tracing: Tracing) -> None:
    assert (await call(answering, tracing))["seen"] == TRACE
    assert "trace_id" not in structlog.contextvars.get_contextvars()


async def test_a_bug_is_a_500_and_an_error(tracing: Tracing, kept: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="bad"):
        await call(failing, tracing)
    (span,) = kept.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 500
    assert span.attributes["error.type"] == "ValueError"
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(("path", "method"), [("/livez", "POST"), ("/rerank", "GET")])
async def test_other_requests_leave_none(
    tracing: Tracing, kept: InMemorySpanExporter, path: str, method: str
) -> None:
    assert (await call(answering, tracing, path, method))["seen"] is None
    assert kept.get_finished_spans() == ()
