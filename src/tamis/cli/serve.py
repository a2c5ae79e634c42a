"""`tamis serve`: the HTTP server."""

import logging
import signal
import socket
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, NoReturn

import typer

from tamis.cli import end_now, exit_code, fail
from tamis.cli.options import (
    Device,
    Dtype,
    Host,
    MaxLength,
    Model,
    Offline,
    Port,
    Revision,
    Runtime,
    Threads,
    Workers,
    settings_arguments,
)
from tamis.errors import SettingsError, TamisError
from tamis.settings import LogSettings, ServerSettings, Settings, TelemetrySettings, load_settings

if TYPE_CHECKING:  # the command line imports nothing heavy at start
    from tamis.observability.tracing import Tracing
    from tamis.server.lifespan import ModelLoader

logger = logging.getLogger(__name__)


def serve(
    context: typer.Context,
    model: Model = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    runtime: Runtime = None,
    max_length: MaxLength = None,
    threads: Threads = None,
    offline: Offline = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
) -> None:
    """Serve a model over HTTP, on 127.0.0.1:8000 unless told otherwise.

    A word alone is the model: tamis serve BAAI/bge-reranker-v2-m3 --port 9000. Takes every option
    that `tamis settings --names` lists, too, as --log.level debug or as TAMIS_LOG__LEVEL=debug.
    """
    short = settings_arguments(locals())
    run(load_settings([*context.args, *short], takes_model=True))


def run(settings: Settings, load: "ModelLoader | None" = None) -> None:
    """Serve until a signal comes or the model fails; exits then.

    Args:
        settings: Every option.
        load: Makes the model; tamis's own way if None.
    """
    from tamis.observability.logs import configure_logs

    configure_logs(settings.log)
    try:
        _serve(settings, load)
    except TamisError as error:
        _fail(error, settings.log)


def _serve(settings: Settings, load: "ModelLoader | None") -> None:
    from tamis.engine.loading import load_model
    from tamis.engine.memory import return_large_blocks
    from tamis.observability.metrics import Metrics
    from tamis.server.caching import require_cache
    from tamis.server.lifespan import ModelLife
    from tamis.server.protocol import protocol_class
    from tamis.timing import StageObservers

    return_large_blocks()
    tracing = _open_tracing(settings.telemetry)
    require_cache(settings.cache)
    listeners = _listeners(settings.server)
    host, port = listeners[0].getsockname()[:2]
    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    metrics = Metrics()

    def stop(*_: object) -> None:
        server.should_exit = True

    timing = metrics.stages if tracing is None else StageObservers(metrics.stages, tracing.stages)
    life = ModelLife(settings, metrics, load=load or load_model, on_failure=stop, timing=timing)
    life.begin()  # the rest is imported beside it
    import uvicorn

    from tamis.server.app import create_app
    from tamis.server.draining import DrainingServer

    server = DrainingServer(
        uvicorn.Config(
            create_app(settings, metrics, life, tracing),
            http=protocol_class(settings.limits, metrics.observe_refusal),
            ws="none",
            timeout_graceful_shutdown=settings.server.drain_seconds,
            access_log=False,
            log_config=None,
            server_header=False,
            lifespan="on",
        ),
        announce=life.drain,
        is_stuck=lambda: life.vitals.is_stalled,
        delay_seconds=settings.server.drain_delay_seconds,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # until uvicorn listens for it; it raises it once more when it has drained, and 0 is the end
        signal.signal(number, stop)
    server.run(sockets=listeners)
    if tracing is not None:
        tracing.close()
    if life.failure is not None:
        raise life.failure
    if life.is_loading:
        end_now(0)


def _fail(error: TamisError, log: LogSettings) -> NoReturn:
    """Exit as `fail` does; where the log is JSON, what ends the server is a line of it."""
    import structlog

    from tamis.observability.logs import is_json

    if not is_json(log):
        fail(error)
    code = exit_code(error)
    structlog.stdlib.get_logger(__name__).critical(str(error), code=error.code, exit_code=code)
    sys.exit(code)


def _open_tracing(settings: TelemetrySettings) -> "Tracing | None":
    if settings.otlp_endpoint is None:
        return None
    try:
        from tamis.observability.tracing import open_tracing
    except ImportError as error:
        raise SettingsError(
            "telemetry.otlp_endpoint asks for traces, and OpenTelemetry is not installed; "
            "`pip install 'tamis[otel]'`"
        ) from error
    return open_tracing(settings.otlp_endpoint, sample_ratio=settings.sample_ratio)


def _listeners(settings: ServerSettings) -> list[socket.socket]:
    """The socket of all callers, and that of metrics if they have a port of their own."""
    ports = [settings.port, settings.metrics_port]
    return [_listen(settings.host, port) for port in ports if port is not None]


def _listen(host: str, port: int) -> socket.socket:
    """A socket whose connections send at once; `::` takes callers by IPv4 too, as everywhere.

    asyncio sees to that where a socket names its protocol, and this one does not. With Nagle's
    algorithm an answer in two writes waits for the caller's delayed acknowledgement, 40 ms.
    """
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not socket.has_ipv6:
        raise SettingsError(f"cannot listen on {host}: this Python has no IPv6; use 0.0.0.0")
    dual = _is_every_address(host) and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((host, port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror or error}"
        ) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _is_every_address(host: str) -> bool:
    """Whether it is `::` in any spelling."""
    try:
        return ":" in host and ip_address(host).is_unspecified
    except ValueError:  # `create_server` says so
        return False
