"""`tamis serve`: the HTTP server."""

import signal

import typer

from tamis.cli import fail
from tamis.settings import Settings, load_settings


def serve(context: typer.Context) -> None:
    """Serve a model over HTTP, on 127.0.0.1:8000 unless told otherwise.

    Takes every option that `tamis settings --names` lists, as --server.port 9000 or as
    TAMIS_SERVER__PORT=9000.
    """
    _run(load_settings(context.args))


def _run(settings: Settings) -> None:
    import uvicorn

    from tamis.observability.logs import configure_logs
    from tamis.observability.metrics import Metrics
    from tamis.server.app import create_app
    from tamis.server.lifespan import ModelLife

    configure_logs(settings.log)
    metrics = Metrics()

    def stop() -> None:
        server.should_exit = True

    life = ModelLife(settings, metrics, on_failure=stop)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings.server, metrics, life),
            host=settings.server.host,
            port=settings.server.port,
            timeout_graceful_shutdown=settings.server.drain_seconds,
            access_log=False,
            log_config=None,
            server_header=False,
            lifespan="on",
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn drains, then raises the signal once more; a drained server ends with 0
        signal.signal(number, lambda *_: None)
    server.run()
    if life.failure is not None:
        fail(life.failure)
