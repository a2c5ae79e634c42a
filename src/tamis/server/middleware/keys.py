"""A key for every path, where the server has keys. Plain ASGI."""

from starlette.types import ASGIApp, Receive, Scope, Send

from tamis.errors import UnauthorizedError
from tamis.server.errors import refusal
from tamis.server.keys import ANYONE, Caller, KeyFile, presented_key


class KeyMiddleware:
    """Lets in who has a key, and leaves `caller` in the request's state.

    Every path asks for one, known or not, except those that are `open`: the
    very strings that routes are chosen by.

    Args:
        keys: None where anyone may call.
        open_paths: Paths that ask for no key.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyFile | None, open_paths: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        caller: Caller | None = ANYONE
        if self._keys is not None and scope["path"] not in self._open_paths:
            caller = self._keys.find(presented_key(scope["headers"]))
        if caller is not None:
            scope["state"]["caller"] = caller
            await self._app(scope, receive, send)
            return
        error = UnauthorizedError(
            "send one key that the server knows, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
        )
        await refusal(error, scope)(scope, receive, send)
