"""Around every request: an id, a line in the log, a place in the metrics. Plain ASGI."""

import re
import time
from urllib.parse import quote
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tamis.observability.metrics import Metrics
from tamis.server.endpoints.health import METRICS, PROBES

REQUEST_ID_HEADER = "x-request-id"
QUIET_PATHS = PROBES | {METRICS}

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are the caller's text, and not for the log."""

_LONGEST_PATH_LOGGED = 64
"""Characters of a path that leads nowhere."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestMiddleware:
    """Takes over or makes a request id, sends it back, logs and counts the request.

    Routes leave `dialect`, `usage` and `error_code` in `request.state` for the log line.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._logger = structlog.stdlib.get_logger("tamis.request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        request_id = _request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        is_recorded = False

        async def send_with_id(message: Message) -> None:
            nonlocal is_recorded
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
                self._record(scope, message["status"], time.monotonic() - started)
                is_recorded = True  # how fast the answer is taken is the caller's doing
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                if not is_recorded:
                    self._record(scope, 500, time.monotonic() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        dialect = scope["state"].get("dialect")
        if dialect is not None:
            self._metrics.observe_request(dialect=dialect, status=status, seconds=seconds)
        refusal = scope["state"].get("refusal")
        if refusal is not None:
            self._metrics.observe_refusal(refusal)
        if scope["path"] in QUIET_PATHS:
            return
        usage, caller = scope["state"].get("usage"), scope["state"].get("caller")
        self._logger.info(
            "request",
            method=scope["method"] if scope["method"] in METHODS else None,
            path=_shown_path(scope),
            status=status,
            error_code=scope["state"].get("error_code") or refusal,
            caller=caller.name or None if caller else None,
            seconds=round(seconds, 4),
            dialect=dialect,
            n_pairs=usage.n_pairs if usage else None,
            n_tokens=usage.n_tokens if usage else None,
        )


def _shown_path(scope: Scope) -> str:
    """A path for the log; one that leads nowhere is the caller's text: short, and ASCII alone."""
    path: str = scope["path"]
    return path if "endpoint" in scope else quote(path[:_LONGEST_PATH_LOGGED])


def _request_id(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else uuid4().hex
