"""A port for metrics alone. Plain ASGI."""

from starlette.types import ASGIApp, Receive, Scope, Send

from tamis.server.endpoints.health import METRICS, PROBES
from tamis.server.errors import http_error


class PortMiddleware:
    """Keeps `/metrics` to its own port, and that port to `/metrics` and the probes.

    Args:
        metrics_port: The port that the listening socket has, which no caller can forge.
    """

    def __init__(self, app: ASGIApp, *, metrics_port: int) -> None:
        self._app = app
        self._metrics_port = metrics_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that there is nothing."""
        if scope["type"] != "http" or self._is_here(scope):
            await self._app(scope, receive, send)
            return
        answer = http_error(404, "this port does not serve this path", scope)
        await answer(scope, receive, send)

    def _is_here(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if path in PROBES:
            return True
        _, port = scope["server"]
        return (port == self._metrics_port) is (path == METRICS)
