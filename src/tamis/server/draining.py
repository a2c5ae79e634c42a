"""Draining a server: readiness fails, then no new work is accepted, then connections close."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from tamis.server.listening import BoundedServer

logger = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""Beyond the time to drain, for the batch that runs and for the model to be closed."""
STUCK_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


class DrainingServer(BoundedServer):
    """A server that at SIGTERM is unready for a while before it stops listening.

    Balancers see that and send no more; what they still send is answered. A second signal, or
    SIGINT (somebody at a terminal), ends that while.

    Args:
        announce: Called at each signal, in the main thread; returns whether requests may come.
        is_stuck: Whether the model's thread hangs, so that an orderly end would wait for ever.
        delay_seconds: How long the while is.
        n_other_files: See `BoundedServer`.
        end: Ends the process where a model thread is stuck and nothing else would.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        announce: Callable[[], bool],
        is_stuck: Callable[[], bool],
        delay_seconds: float,
        n_other_files: int = 0,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__(config, n_other_files=n_other_files)
        self._announce = announce
        self._is_stuck = is_stuck
        self._delay_seconds = delay_seconds
        self._end = end
        self._stops_at: float | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve to the end; ends the process, too, where a model's thread would hold it."""
        super().run(sockets)
        if self._is_stuck():
            self._give_up()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGTERM and SIGINT."""
        is_first, is_asked = self._stops_at is None, self._announce()
        delay = self._delay_seconds if is_first and is_asked and sig == signal.SIGTERM else 0.0
        if is_first:
            self._bound_the_end(delay)
            self._stops_at = time.monotonic() + delay
        if not delay:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times per second; True ends the server."""
        if self._stops_at is not None and time.monotonic() >= self._stops_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def _bound_the_end(self, delay: float) -> None:
        """A model that never comes back holds its thread, and the thread holds the process."""
        seconds = delay + (self.config.timeout_graceful_shutdown or 0) + GRACE_SECONDS
        last = threading.Timer(seconds, self._give_up)
        last.daemon = True
        last.start()

    def _give_up(self) -> None:
        logger.error("the model does not stop; the process exits without it")
        self._end(STUCK_EXIT_CODE)
