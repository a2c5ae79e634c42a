"""Is it alive, is it ready, how is it doing."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tamis.engine.facts import ModelFacts
from tamis.server.context import ServerContext

LIVENESS = frozenset({"/livez", "/live", "/health/live"})
READINESS = frozenset(
    {
        *("/readyz", "/ready", "/health/ready"),
        *("/health", "/healthz", "/healthcheck", "/ping"),  # as TEI, vLLM and SageMaker have them
    }
)
PROBES = LIVENESS | READINESS
METRICS = "/metrics"


async def livez(request: Request) -> Response:
    """200 while the event loop turns and this process can do its work; else 503."""
    life, vitals = ServerContext.of(request).life, ServerContext.of(request).assembly.vitals
    if vitals.is_stalled:
        return JSONResponse({"status": "stalled", "reason": vitals.reason}, status_code=503)
    if life.state == "failed":  # nothing in this process makes it well again
        return JSONResponse({"status": "failed"}, status_code=503)
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> Response:
    """200 once the model answers, `degraded` too; 503 before, when it cannot, and at the end."""
    life = ServerContext.of(request).life
    hosted, reason = life.assembly.default, life.assembly.vitals.reason
    degraded = life.degraded if life.state == "ready" else None
    body: dict[str, object] = {"status": "degraded" if degraded else life.state}
    if reason:
        body["reason"] = reason
    if hosted.model is not None:
        body |= _described(hosted.model.facts)
    if life.degraded is not None:
        body["degraded"] = life.degraded
    if hosted.first_stage is not None:
        body["first_stage"] = _described(hosted.first_stage.facts)
    return JSONResponse(body, status_code=200 if life.state == "ready" else 503)


async def metrics(request: Request) -> Response:
    """All metrics in Prometheus's text format."""
    context = ServerContext.of(request)
    if context.assembly.cache is not None:
        context.metrics.cache.observe_stores(await context.assembly.cache.statistics())
    text = context.metrics.render()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _described(facts: ModelFacts) -> dict[str, str]:
    return {
        "model": facts.name,
        "runtime": facts.runtime,
        "device": facts.device,
        "dtype": facts.dtype,
    }
