"""The `tamis` command."""

import sys
from typing import NoReturn

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
    try:
        from tamis.cli.commands import app

        app()
    except TamisError as error:
        fail(error)
    except KeyboardInterrupt:  # typer has its own way with it, but only once it is loaded
        sys.exit(130)


def fail(error: TamisError) -> NoReturn:
    """Say what is wrong on stderr and exit with the code of its kind."""
    print(f"tamis: {error}", file=sys.stderr)
    sys.exit(exit_code(error))


def exit_code(error: TamisError) -> int:
    """The exit code of an error's kind."""
    return next(_EXIT_CODES[cls] for cls in type(error).__mro__ if cls in _EXIT_CODES)
