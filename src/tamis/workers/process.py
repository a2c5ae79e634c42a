"""One worker process and the channel to it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tamis.workers.channel import Channel, FromWorker, Start

# -P: nothing is imported from the current folder
WORKER_COMMAND = (sys.executable, "-P", "-m", "tamis.workers.worker")
_EXIT_SECONDS = 1.0
"""For a process that has closed its socket to exit, so that its exit code is known."""


class WorkerProcess:
    """A worker's process, with a channel to it.

    It is spawned, not forked: threads and devices do not survive a fork. It has a process group of
    its own, so that Ctrl-C reaches only the server, which stops its workers once they are done.

    Args:
        command: The program; the socket's descriptor is added as its last argument.
        start: The first frame sent to it.
        environment: Variables it gets in addition to the server's.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(
        self, command: Sequence[str], start: Start, environment: Mapping[str, str]
    ) -> None:
        ours, theirs = socket.socketpair()
        self.channel: Channel[FromWorker] = Channel(ours, FromWorker)
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - this very Python, or a test's
                    [*command, str(theirs.fileno())],
                    env=os.environ | environment,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except OSError:
            self.channel.close()
            raise
        try:
            self.channel.send(start)
        except OSError:  # it has exited already: the reader of the channel gets the reason
            return

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def exit_reason(self) -> str:
        """How it exited, after it has closed its socket."""
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its socket without exiting"
        if code >= 0:
            return f"ended with exit code {code}"
        why = ", usually by the system because memory ran out" if code == -signal.SIGKILL else ""
        return f"was killed by signal {-code}{why}"

    def end(self, seconds: float = 0.0) -> None:
        """Stop it and everything it has started, even in the middle of a batch.

        Args:
            seconds: How long it may take to exit by itself.
        """
        self.channel.close()
        if seconds:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        with suppress(ProcessLookupError, PermissionError):  # its group is empty
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
