"""Is it alive, is it ready, how is it doing."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tamis.engine.loading import LoadedModel
from tamis.server.context import ServerContext


async def livez(_: Request) -> Response:
    """200 while the event loop turns."""
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> Response:
    """200 once the model answers; 503 before, and when it cannot."""
    life = ServerContext.of(request).life
    body: dict[str, object] = {"status": life.state}
    if life.model is not None:
        body |= _described(life.model)
    if life.first_stage is not None:
        body["first_stage"] = _described(life.first_stage)
    return JSONResponse(body, status_code=200 if life.state == "ready" else 503)


async def metrics(request: Request) -> Response:
    """All metrics in Prometheus's text format."""
    text = ServerContext.of(request).metrics.render()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _described(model: LoadedModel) -> dict[str, str]:
    return {
        "model": model.name,
        "runtime": model.runtime,
        "device": model.device,
        "dtype": model.dtype,
    }
