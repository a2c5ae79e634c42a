"""The end of a connection, told by the last answer on it. Plain ASGI."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tamis.server.lifespan import ModelLife


class ClosingMiddleware:
    """While the server drains each answer ends its connection, so that pools look elsewhere."""

    def __init__(self, app: ASGIApp, *, life: ModelLife) -> None:
        self._app = app
        self._life = life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._life.is_draining:
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_last if scope["type"] == "http" else send)
