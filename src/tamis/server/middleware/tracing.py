"""Around a rerank request, where traces are asked for: its span. Plain ASGI."""

from collections.abc import Container, Mapping
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tamis.observability.spans import Tracing, propagated


class TracingMiddleware:
    """Traces requests to some paths, and has their log lines say in which trace they are.

    Routes leave `dialect`, `model`, `usage` and `error_code` in `request.state`.

    Args:
        paths: Those that are traced.
    """

    def __init__(self, app: ASGIApp, *, tracing: Tracing, paths: Container[str]) -> None:
        self._app = app
        self._tracing = tracing
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["path"] not in self._paths or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = propagated(scope["headers"])
        with (
            self._tracing.request(scope["method"], scope["path"], headers) as span,
            structlog.contextvars.bound_contextvars(trace_id=span.trace_id),
        ):
            try:
                await self._app(scope, receive, send_noting)
            finally:
                span.finish(status, _attributes(scope.get("state", {})))


def _attributes(state: Mapping[str, Any]) -> dict[str, str | int | None]:
    """What the route has left in a request's state."""
    usage = state.get("usage")
    return {
        "error.type": state.get("error_code") or state.get("refusal"),
        "tamis.request_id": state.get("request_id"),
        "tamis.dialect": state.get("dialect"),
        "tamis.model": state.get("model"),
        "tamis.n_pairs": usage.n_pairs if usage else None,
        "tamis.n_tokens": usage.n_tokens if usage else None,
        "tamis.n_cached": usage.n_cached if usage else None,
    }
