"""The `tamis` command."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from tamis.cli.signals import ENDING, ignore_others
from tamis.errors import (
    CacheUnreachableError,
    HubUnreachableError,
    ModelError,
    RequestError,
    SettingsError,
    TamisError,
)

_EXIT_CODES: dict[type[TamisError], int] = {  # sysexits.h
    TamisError: 70,
    RequestError: 65,
    HubUnreachableError: 69,
    CacheUnreachableError: 69,
    ModelError: 78,
    SettingsError: 78,
}


def main() -> None:
    """Run the command; errors raised on purpose become one sentence and an exit code."""
    if sys.argv[1:2] == ["serve"]:
        ignore_others()
        for number in ENDING:  # `serve` handles them once it is imported
            signal.signal(number, _end_at_signal)
    try:
        from tamis.cli.commands import run

        sys.exit(run())
    except TamisError as error:
        fail(error)
    except KeyboardInterrupt:  # typer has its own way with it, but only once it is loaded
        sys.exit(130)


def end_now(code: int) -> NoReturn:
    """End the process without waiting for its threads.

    Python's own way out ends in a crash while another thread is inside a C++ library, for example
    loading a model.
    """
    import logging  # `serve` imports it in any case, but not before it listens to signals

    logging.shutdown()  # writes what waits to be written
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def _end_at_signal(_number: int, _frame: FrameType | None) -> None:
    end_now(0)


def fail(error: TamisError) -> NoReturn:
    """Say what is wrong on stderr and exit with the code of its kind."""
    print(f"tamis: {error}", file=sys.stderr)
    sys.exit(exit_code(error))


def exit_code(error: TamisError) -> int:
    """The exit code of an error's kind."""
    return next(_EXIT_CODES[cls] for cls in type(error).__mro__ if cls in _EXIT_CODES)
