"""A worker: `python -m tamis.workers.worker DESCRIPTOR` loads a model and answers batches.

One thread does all the work, so that an answer to a batch or to a ping proves that the model's
thread is alive. Log lines go to the server over the same channel. The worker ends with the server,
even in the middle of a batch.
"""

import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

from tamis.engine.backend import Backend
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.memory import is_out_of_memory, release_unused
from tamis.engine.padding import padding_of
from tamis.errors import TamisError
from tamis.settings import ModelSettings
from tamis.workers.channel import (
    Channel,
    FromWorker,
    Log,
    Ping,
    Pong,
    Ready,
    Refused,
    Start,
    ToWorker,
    Work,
    WorkDone,
    WorkFailed,
    unpack,
)

logger = logging.getLogger(__name__)

REFUSED = 78
"""The exit code if the model cannot be loaded and the server has been told why."""

FAILED = 70  # EX_SOFTWARE of sysexits.h

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
Loader = Callable[[ModelSettings, Path], LoadedModel]


class _ServerGoneError(Exception):
    """The server has closed its end; a model's own lost connections are something else."""


def main(arguments: list[str], load: Loader = load_model) -> int:
    """Serve the socket whose descriptor is the only argument, until the server closes it."""
    channel: Channel[ToWorker] = Channel(socket.socket(fileno=int(arguments[0])), ToWorker)
    try:
        start = _received(channel)
        if isinstance(start, Start):
            _set_up_process(start, channel)
            return _serve(start, channel, load)
    except _ServerGoneError:
        return 0
    except Exception:  # by way of the server: a stderr that nobody reads would hold it here
        logger.exception("the worker ends")
        return FAILED
    return 64  # EX_USAGE: the first frame was not `Start`


def _serve(start: Start, channel: Channel[ToWorker], load: Loader) -> int:
    try:
        model = load(ModelSettings.model_validate_json(start.settings), Path(start.folder))
    except TamisError as error:
        _send(channel, Refused(error.code, str(error)))
        return REFUSED
    ready = Ready(
        model.facts,
        seconds_per_token=model.seconds_per_token,
        padding=padding_of(model.backend),
    )
    _send(channel, ready)
    backend: Backend = model.backend
    del model  # and its tokenizer, which the server has, too
    release_unused()
    while True:
        order = _received(channel)
        if isinstance(order, Work):
            _send(channel, _answer(backend, order))
        elif isinstance(order, Ping):
            _send(channel, Pong())


def _received(channel: Channel[ToWorker]) -> ToWorker | None:
    try:
        return channel.receive()
    except (EOFError, ConnectionError) as error:
        raise _ServerGoneError from error


def _send(channel: Channel[ToWorker], frame: FromWorker) -> None:
    try:
        channel.send(frame)
    except ConnectionError as error:
        raise _ServerGoneError from error


def _answer(backend: Backend, work: Work) -> WorkDone | WorkFailed:
    try:
        logits = backend.forward(unpack(work))
    except Exception as error:  # of any kind: the server decides whether this process goes on
        out_of_memory = is_out_of_memory(error)
        if out_of_memory:
            release_unused()
        else:
            logger.exception("the model failed on a batch")
        return WorkFailed(type(error).__name__, out_of_memory)
    return WorkDone(logits.astype(np.dtype("<f4"), copy=False).tobytes())


def _set_up_process(start: Start, channel: Channel[ToWorker]) -> None:
    """Set cores, signals and log before anything is loaded: libraries count cores on loading."""
    if start.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, start.cores)
    _exit_with_server(start.parent)
    # systemd sends SIGTERM to every process of the server. Requests that were accepted are answered
    # first; then the server closes the channel. A handler, unlike SIG_IGN, is not inherited
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _ignore_signal)
    handlers = [_LogToServer(channel)]
    logging.basicConfig(handlers=handlers, level=start.level, format="%(message)s", force=True)


def _ignore_signal(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def _exit_with_server(parent: int) -> None:
    """Have the system kill this process when the server ends, even in the middle of a batch.

    Only Linux can; elsewhere the worker exits between batches, when it reads the socket's end.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # the server had ended already
        raise _ServerGoneError


class _LogToServer(logging.Handler):
    """Sends each log line, with its traceback, to the server."""

    def __init__(self, channel: Channel[ToWorker]) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line; it is lost if the server is gone."""
        try:
            self._channel.send(Log(record.name, record.levelno, self.format(record)))
        except OSError:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
