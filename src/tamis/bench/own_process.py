"""Work in a fresh process, so that its memory and threads are its own."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple, cast

from tamis.errors import InferenceError, TamisError

ENDING = (signal.SIGTERM, signal.SIGHUP)
Arguments = TypeVarTuple("Arguments")
Answer = TypeVar("Answer")


def run_apart(function: Callable[[*Arguments], Answer], *arguments: *Arguments) -> Answer:
    """Call a module's function in a new process, which never outlives the call.

    Raises:
        TamisError: what the function raised.
        InferenceError: the process ended without an answer.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    try:
        with signals_wait():
            process.start()
        sender.close()
        answer = receiver.recv()
    except EOFError as error:
        process.join()
        raise InferenceError(
            f"the measuring process exited with code {process.exitcode}; -9 means that the "
            "system ended it, usually because memory ran out"
        ) from error
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
    if isinstance(answer, TamisError):
        raise answer
    return cast("Answer", answer)


def _answer(
    sender: Connection, function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's, who then ends us
    try:
        answer = function(*arguments)
    except TamisError as error:
        answer = error
    sender.send(answer)


@contextmanager
def ended_by_signals() -> Generator[None]:
    """Let SIGTERM and SIGHUP raise, as Ctrl-C does, so that what was started is ended, too.

    One that is ignored, as under `nohup`, stays so.
    """
    heeded = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, _exit) for number in heeded}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def signals_wait() -> Generator[None]:
    """Hold signals back until the block's end: a start that they interrupt loses its process."""
    come: list[int] = []
    former = {
        number: signal.signal(number, lambda number, _: come.append(number))
        for number in (signal.SIGINT, *ENDING)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    for held_back in come:
        signal.raise_signal(held_back)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # as a shell says it
