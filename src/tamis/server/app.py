"""Puts the server together; decides nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from tamis.observability.metrics import Metrics
from tamis.server import documentation, health
from tamis.server.context import ServerContext
from tamis.server.lifespan import ModelLife
from tamis.server.middleware import RequestMiddleware
from tamis.server.routes import rerank
from tamis.settings import ServerSettings


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
            Mount("/docs", routes=documentation.asset_routes()),
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


async def _unexpected_error(request: Request, _: Exception) -> Response:
    message = "an error of the server's own; its log has more under the request id"
    body = {"error": message, "code": "internal_error", "request_id": request.state.request_id}
    return JSONResponse(body, status_code=500)
