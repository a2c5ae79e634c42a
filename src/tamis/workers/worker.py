"""A worker: `python -m tamis.workers.worker DESCRIPTOR` loads a model and answers batches.

One thread does all of it, so that an answer, to a batch or to a ping, is the model's own sign of
life. Its log goes to the server with the answers. It ends when the server does, whatever it is at.
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
    Answer,
    Channel,
    Failed,
    Log,
    Order,
    Ping,
    Pong,
    Ready,
    Refused,
    Start,
    Work,
    unpack,
)

logger = logging.getLogger(__name__)

REFUSED = 78
"""The exit code where the model cannot be loaded, and the server has been told why."""

FAILED = 70  # EX_SOFTWARE of sysexits.h

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
Loader = Callable[[ModelSettings, Path], LoadedModel]


def main(arguments: list[str], load: Loader = load_model) -> int:
    """Serve the socket of which the one argument is the descriptor, until it is hung up."""
    channel: Channel[Order] = Channel(socket.socket(fileno=int(arguments[0])), Order)
    try:
        start = channel.receive()
        if isinstance(start, Start):
            _settle_in(start, channel)
            return _serve(start, channel, load)
    except (EOFError, ConnectionError):
        return 0  # the server has hung up: nobody wants anything any more
    except Exception:  # by way of the server: a stderr that nobody reads would hold it here
        logger.exception("the worker ends")
        return FAILED
    return 64  # EX_USAGE: whoever called it has not said what to load


def _serve(start: Start, channel: Channel[Order], load: Loader) -> int:
    try:
        model = load(ModelSettings.model_validate_json(start.settings), Path(start.folder))
    except TamisError as error:
        channel.send(Refused(error.code, str(error)))
        return REFUSED
    channel.send(
        Ready(
            name=model.name,
            runtime=model.runtime,
            device=model.device,
            dtype=model.dtype,
            max_length=model.max_length,
            max_batch_tokens=model.max_batch_tokens,
            seconds_per_token=model.seconds_per_token,
            digest=model.digest,
            padding=padding_of(model.backend),
        )
    )
    backend: Backend = model.backend
    del model  # the tokenizer has done its part
    release_unused()
    while True:
        order = channel.receive()
        if isinstance(order, Work):
            channel.send(_answer(backend, order))
        elif isinstance(order, Ping):
            channel.send(Pong())


def _answer(backend: Backend, work: Work) -> Answer | Failed:
    try:
        logits = backend.forward(unpack(work))
    except Exception as error:  # of any kind: the server judges, and this process goes on
        out_of_memory = is_out_of_memory(error)
        if out_of_memory:
            release_unused()
        else:
            logger.exception("the model failed on a batch")
        return Failed(type(error).__name__, out_of_memory)
    return Answer(logits.astype(np.dtype("<f4"), copy=False).tobytes())


def _settle_in(start: Start, channel: Channel[Order]) -> None:
    """Cores, end and log, before anything is loaded: threads are made for the cores there are."""
    if start.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, start.cores)
    _end_with(start.parent)
    # a supervisor tells every process of the server to end (systemd does); what was accepted is
    # answered first, and the server hangs up then. A handler is not inherited, as SIG_IGN is
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _go_on)
    sends = [_LogToServer(channel)]
    logging.basicConfig(handlers=sends, level=start.level, format="%(message)s", force=True)


def _go_on(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal by nothing."""


def _end_with(parent: int) -> None:
    """End when the server does, even in the middle of a batch.

    Elsewhere than on Linux the end of the socket says it, between batches.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it has ended before we could ask
        raise EOFError


class _LogToServer(logging.Handler):
    """Sends each line, with its traceback, to the server."""

    def __init__(self, channel: Channel[Order]) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line; one that the server is not there to read is lost."""
        try:
            self._channel.send(Log(record.name, record.levelno, self.format(record)))
        except OSError:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
