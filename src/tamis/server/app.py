"""Puts the server together; decides nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tamis.errors import TamisError
from tamis.observability.metrics import Metrics
from tamis.server.body import BodyRoom
from tamis.server.context import ServerContext
from tamis.server.endpoints import documentation, health
from tamis.server.endpoints.dialects import dialect_routes
from tamis.server.endpoints.feedback import feedback
from tamis.server.endpoints.limits import limits
from tamis.server.endpoints.rerank import CACHE_HEADER, TIMEOUT_HEADER, WARNINGS_HEADER
from tamis.server.endpoints.stats import stats
from tamis.server.errors import early_answer, http_error
from tamis.server.keys import KeyFile
from tamis.server.lifespan import ModelLife
from tamis.server.middleware.closing import ClosingMiddleware
from tamis.server.middleware.hosts import HostMiddleware, names_in
from tamis.server.middleware.keys import KeyMiddleware
from tamis.server.middleware.paths import PathMiddleware, nearest_path
from tamis.server.middleware.ports import PortMiddleware
from tamis.server.middleware.requests import REQUEST_ID_HEADER, RequestMiddleware
from tamis.server.middleware.sending import SendingMiddleware, UnsentRoom
from tamis.settings import ServerSettings, Settings
from tamis.sharing import FairThread
from tamis.wire.registry import DIALECTS

if TYPE_CHECKING:  # an extra
    from tamis.observability.spans import Tracing

_logger = structlog.stdlib.get_logger(__name__)

CALLERS_HEADERS = (
    *("authorization", "x-api-key", "traceparent", "tracestate"),
    *(REQUEST_ID_HEADER, TIMEOUT_HEADER, CACHE_HEADER),
)
"""Headers that allowed pages of other origins may send, in addition to HTTP's common ones."""


def create_app(
    settings: Settings, metrics: Metrics, life: ModelLife, tracing: "Tracing | None" = None
) -> Starlette:
    """The ASGI application around a model's life.

    Raises:
        SettingsError: the file of keys, a baseline or the log of requests cannot be used.
    """
    keys_file = settings.server.keys_file
    keys = None if keys_file is None else KeyFile(keys_file)
    parsing = FairThread("tamis-parser")
    bodies = BodyRoom(settings.limits.max_total_body_bytes)
    unsent = UnsentRoom(settings.limits.max_unsent_bytes)
    metrics.state.watch_rooms(bodies=bodies, unsent=unsent)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        if keys is not None:
            keys.follow()
        try:
            async with life.run():
                yield
        finally:
            if keys is not None:
                keys.close()
            await parsing.close()

    app = Starlette(
        routes=[
            Route("/", _home),
            *dialect_routes(),
            Route("/v1/limits", limits),
            Route("/v1/stats", stats),
            Route("/v1/feedback", feedback, methods=["POST"]),
            *(Route(path, health.livez) for path in sorted(health.LIVENESS)),
            *(Route(path, health.readyz) for path in sorted(health.READINESS)),
            Route(health.METRICS, health.metrics),
            Route("/openapi.json", documentation.openapi),
            Route("/docs", documentation.page),
            *documentation.asset_routes(),
        ],
        middleware=[
            Middleware(SendingMiddleware, room=unsent, seconds=settings.limits.max_answer_seconds),
            Middleware(PathMiddleware),
            Middleware(ClosingMiddleware, life=life),
            *_traced(tracing),
            Middleware(RequestMiddleware, metrics=metrics),
            *_guards(settings.server, keys),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _unexpected_error},
        lifespan=lifespan,
    )
    watch = life.assembly.watch
    app.state.context = ServerContext(settings, metrics, life, bodies, parsing, watch, keys)
    return app


def _traced(tracing: "Tracing | None") -> list[Middleware]:
    if tracing is None:
        return []
    from tamis.server.middleware.tracing import TracingMiddleware

    paths = frozenset(path for path, method, _ in DIALECTS.places() if method == "POST")
    return [Middleware(TracingMiddleware, tracing=tracing, paths=paths)]


def _guards(settings: ServerSettings, keys: KeyFile | None) -> list[Middleware]:
    """Who may come in, and where, from the outermost on."""
    origins = names_in(settings.cors_origins)
    guards = [
        Middleware(
            HostMiddleware,
            allowed=names_in(settings.allowed_hosts),
            own=settings.host,
            origins=origins,
        )
    ]
    if origins:
        guards.append(
            Middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=CALLERS_HEADERS,
                expose_headers=[REQUEST_ID_HEADER, WARNINGS_HEADER, "retry-after"],
            )
        )
    open_paths = health.PROBES | documentation.PATHS
    if settings.metrics_port is not None:
        guards.append(Middleware(PortMiddleware, metrics_port=settings.metrics_port))
    if settings.metrics_port is not None or settings.metrics_open:
        open_paths |= {health.METRICS}
    return [*guards, Middleware(KeyMiddleware, keys=keys, open_paths=open_paths)]


async def _home(_: Request) -> Response:
    return RedirectResponse("/docs")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for that class alone
    return http_error(error.status_code, _sentence(request, error), request.scope, error.headers)


def _sentence(request: Request, error: HTTPException) -> str:
    """What is wrong with a path or a method; neither is repeated."""
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"this path takes {(error.headers or {}).get('Allow', 'no method')} alone"
    if error.status_code != HTTPStatus.NOT_FOUND:
        return error.detail
    known = [route.path for route in request.app.routes if isinstance(route, Route)]
    near = nearest_path(request.scope["path"], known)
    return f"no such path; did you mean {near}?" if near else "no such path; /docs lists them all"


async def _unexpected_error(request: Request, error: Exception) -> Response:
    """Stands outside of `RequestMiddleware`; the server closes the connection after it."""
    request_id: str = request.state.request_id
    _logger.error("request failed", request_id=request_id, exc_info=error)
    message = "an error of the server's own; its log has more under the request id"
    headers = {REQUEST_ID_HEADER: request_id, "connection": "close"}
    return early_answer(TamisError(message), 500, request.scope, headers)
