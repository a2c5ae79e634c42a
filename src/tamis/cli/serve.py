"""`tamis serve`: the HTTP server."""

import logging
import signal
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import typer

from tamis.cli import end_now, exit_code
from tamis.cli.options import (
    DeviceOption,
    DtypeOption,
    HostOption,
    MaxLengthOption,
    ModelOption,
    OfflineOption,
    PortOption,
    RevisionOption,
    RuntimeOption,
    ThreadsOption,
    WorkersOption,
    settings_arguments,
)
from tamis.cli.signals import ENDING, ignore_others
from tamis.errors import SettingsError, TamisError
from tamis.settings import LogSettings, ServerSettings, Settings, TelemetrySettings, load_settings

if TYPE_CHECKING:  # the command line imports nothing heavy at start
    from tamis.assembly.served import ModelLoader
    from tamis.observability.log_writer import LogWriter
    from tamis.observability.spans import Tracing
    from tamis.server.draining import DrainingServer
    from tamis.server.keys import KeyFile

FILES_FOR_REDIS = 24
"""Connections of its readers, its writer and of people, to one server."""
FILES_A_WORKER = 6
"""Its channel, and what the start of another one takes."""

logger = logging.getLogger(__name__)


def serve(
    context: typer.Context,
    model: ModelOption = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    runtime: RuntimeOption = None,
    max_length: MaxLengthOption = None,
    threads: ThreadsOption = None,
    offline: OfflineOption = None,
    host: HostOption = None,
    port: PortOption = None,
    workers: WorkersOption = None,
) -> None:
    """Serve a model over HTTP, by default on 127.0.0.1:8000.

    A single word is the model: tamis serve BAAI/bge-reranker-v2-m3 --port 9000. Every option that
    `tamis settings --names` lists works as well, as --log.level debug or TAMIS_LOG__LEVEL=debug.
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

    log = configure_logs(settings.log)
    try:
        _serve(settings, load, log)
    except TamisError as error:
        _fail(error, settings.log, log)


def _serve(settings: Settings, load: "ModelLoader | None", log: "LogWriter") -> None:
    from tamis.assembly.assembly import Assembly
    from tamis.cache.configured import require_cache
    from tamis.engine.loading import load_model
    from tamis.observability.metrics import Metrics
    from tamis.server.lifespan import ModelLife
    from tamis.server.protocol import protocol_class
    from tamis.timing import PhaseObservers

    tracing = _open_tracing(settings.telemetry)
    require_cache(settings.cache)
    listeners = _listeners(settings.server)
    host, port = listeners[0].getsockname()[:2]
    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    metrics = Metrics()
    metrics.logs.watch(log)

    def stop(*_: object) -> None:
        server.should_exit = True

    timing = metrics.phases if tracing is None else PhaseObservers(metrics.phases, tracing.phases)
    assembly = Assembly(settings, metrics, load=load or load_model, timing=timing)
    life = ModelLife(assembly, metrics, on_failure=stop)
    assembly.begin()  # the rest is imported meanwhile
    import uvicorn

    from tamis.server.app import create_app
    from tamis.server.context import ServerContext
    from tamis.server.draining import DrainingServer

    app = create_app(settings, metrics, life, tracing)
    server = DrainingServer(
        uvicorn.Config(
            app,
            http=protocol_class(settings.limits, metrics.observe_refusal),
            ws="none",
            timeout_graceful_shutdown=settings.server.drain_seconds,
            access_log=False,
            log_config=None,
            server_header=False,
            lifespan="on",
        ),
        announce=life.drain,
        is_stuck=lambda: assembly.vitals.is_stalled,
        delay_seconds=settings.server.drain_delay_seconds,
        n_other_files=_n_files(settings),
        end=end_now,
    )
    metrics.state.watch_connections(lambda: server.connections)
    context: ServerContext = app.state.context
    _listen_to_signals(server, context.keys, stop)
    server.run(sockets=listeners)
    if tracing is not None:
        tracing.close()
    if life.failure is not None:
        raise life.failure
    if assembly.is_loading:
        end_now(0)


def _listen_to_signals(
    server: "DrainingServer", keys: "KeyFile | None", stop: Callable[..., object]
) -> None:
    """All but SIGTERM and SIGINT, which uvicorn listens for while it runs.

    It raises these once more when it has drained, and `stop` is the end.
    """

    def drain(_number: int, frame: FrameType | None) -> None:
        server.handle_exit(signal.SIGTERM, frame)

    def reload(_number: int, _frame: FrameType | None) -> None:
        if keys is not None:
            keys.reload()

    ignore_others()
    for number in ENDING:
        signal.signal(number, stop)
    signal.signal(signal.SIGQUIT, drain)
    signal.signal(signal.SIGHUP, reload)


def _n_files(settings: Settings) -> int:
    """Files that the server may open later: pipes of its workers, connections to Redis."""
    n_redis = 0 if settings.cache.redis_url is None else FILES_FOR_REDIS
    return n_redis + FILES_A_WORKER * settings.scheduler.workers


def _fail(error: TamisError, settings: LogSettings, log: "LogWriter") -> NoReturn:
    """Exit as `fail` does; where the log is JSON, what ends the server is a line of it."""
    import structlog

    from tamis.observability.logs import is_json

    code = exit_code(error)
    if is_json(settings):
        log.expect_end()
        structlog.stdlib.get_logger(__name__).critical(str(error), code=error.code, exit_code=code)
    else:
        log.end(f"tamis: {error}")
    sys.exit(code)


def _open_tracing(settings: TelemetrySettings) -> "Tracing | None":
    if settings.otlp_endpoint is None:
        return None
    try:
        from tamis.observability.spans import open_tracing
    except ImportError as error:
        raise SettingsError(
            "telemetry.otlp_endpoint is set, but OpenTelemetry is not installed; "
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
