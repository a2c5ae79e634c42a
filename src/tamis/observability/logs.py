"""One line an event, for people on a terminal and as JSON elsewhere; never texts of users."""

import logging
import sys
from typing import Any

import structlog

from tamis.observability.log_rate import LogRate
from tamis.observability.log_writer import LogWriter
from tamis.settings import LogSettings


def configure_logs(settings: LogSettings) -> LogWriter:
    """Send structlog's and the standard library's events to stderr in one format.

    Returns:
        What writes them, in a thread of its own; `logging.shutdown`, as at the end of every
        program, waits for it.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = LogWriter(sys.stderr, LogRate(settings.requests_per_second))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(settings),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.captureWarnings(
        capture=True
    )  # they would be written to stderr from wherever they arise
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    return handler


def is_json(settings: LogSettings) -> bool:
    """Whether lines are JSON: for programs, and wherever stderr is no terminal."""
    return settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())


def _renderers(settings: LogSettings) -> list[Any]:
    if not is_json(settings):
        console = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # the default one prints local variables, and with them texts of users
            exception_formatter=structlog.dev.plain_traceback,
        )
        return [console]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
