"""Puts the server together; decides nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tamis.observability.metrics import Metrics
from tamis.server import documentation, health
from tamis.server.context import ServerContext
from tamis.server.lifespan import ModelLife
from tamis.server.middleware import REQUEST_ID_HEADER, RequestMiddleware
from tamis.server.routes import rerank
from tamis.settings import ServerSettings

_logger = structlog.stdlib.get_logger(__name__)


def create_app(settings: ServerSettings, metrics: Metrics, life: ModelLife) -> Starlette:
    """The ASGI application around a model's life."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with life.run():
            yield

    app = Starlette(
        routes=[
            Route("/", _home),
            Route("/rerank", rerank, methods=["POST"]),
            Route("/v1/rerank", rerank, methods=["POST"]),
            Route("/livez", health.livez),
            Route("/readyz", health.readyz),
            Route("/metrics", health.metrics),
            Route("/openapi.json", documentation.openapi),
            Route("/docs", documentation.page),
            *documentation.asset_routes(),
        ],
        middleware=[Middleware(RequestMiddleware, metrics=metrics)],
        exception_handlers={HTTPException: _http_error, Exception: _unexpected_error},
        lifespan=lifespan,
    )
    app.state.context = ServerContext(settings, metrics, life)
    return app


async def _home(_: Request) -> Response:
    return RedirectResponse("/docs")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for that class alone
    body = {"error": error.detail, "code": "http_error", "request_id": request.state.request_id}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    """Stands outside of `RequestMiddleware`; the server closes the connection after it."""
    request_id: str = request.state.request_id
    _logger.error("request failed", request_id=request_id, exc_info=error)
    message = "an error of the server's own; its log has more under the request id"
    body = {"error": message, "code": "internal_error", "request_id": request_id}
    headers = {REQUEST_ID_HEADER: request_id, "connection": "close"}
    return JSONResponse(body, status_code=500, headers=headers)
