"""`tamis serve`: the HTTP server."""

import logging
import signal
import socket
from types import FrameType

import typer

from tamis.cli import fail
from tamis.errors import SettingsError
from tamis.settings import ServerSettings, Settings, load_settings

logger = logging.getLogger(__name__)


def serve(context: typer.Context) -> None:
    """Serve a model over HTTP, on 127.0.0.1:8000 unless told otherwise.

    Takes every option that `tamis settings --names` lists, as --server.port 9000 or as
    TAMIS_SERVER__PORT=9000.
    """
    _run(load_settings(context.args))


def _run(settings: Settings) -> None:
    from tamis.observability.logs import configure_logs
    from tamis.observability.metrics import Metrics
    from tamis.server.lifespan import ModelLife

    listener = _listen(settings.server)
    configure_logs(settings.log)
    host, port = listener.getsockname()[:2]
    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    metrics = Metrics()

    def stop() -> None:
        server.should_exit = True

    life = ModelLife(settings, metrics, on_failure=stop)
    life.begin()  # the rest is imported beside it
    import uvicorn

    from tamis.server.app import create_app

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings.server, metrics, life),
            timeout_graceful_shutdown=settings.server.drain_seconds,
            access_log=False,
            log_config=None,
            server_header=False,
            lifespan="on",
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn drains, then raises the signal once more; a drained server ends with 0
        signal.signal(number, _pass)
    server.run(sockets=[listener])
    if life.failure is not None:
        fail(life.failure)


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}"
        ) from error


def _pass(_number: int, _frame: FrameType | None) -> None:
    """Let a signal go by."""
