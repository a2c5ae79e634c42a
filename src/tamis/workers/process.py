"""One life of a worker: started, spoken to, ended."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tamis.workers.channel import Channel, Report, Start

# -P: nothing is imported from the folder that somebody happens to stand in
WORKER_COMMAND = (sys.executable, "-P", "-m", "tamis.workers.worker")
_EXIT_SECONDS = 1.0
"""For a process that has hung up to be gone, so that its exit code can be told."""


class WorkerProcess:
    """A program of ours on the other end of a channel.

    It is started afresh, not forked: threads and devices do not survive a fork. Its group is its
    own, so that Ctrl-C ends the server alone, which then ends its workers when they are done.

    Args:
        command: The program, to which the socket's descriptor is added.
        start: What it is to do.
        environment: Variables it has besides the server's.

    Raises:
        OSError: the system starts no process.
    """

    def __init__(
        self, command: Sequence[str], start: Start, environment: Mapping[str, str]
    ) -> None:
        ours, theirs = socket.socketpair()
        self.channel: Channel[Report] = Channel(ours, Report)
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
        except OSError:  # it is gone already: who listens to it learns why
            return

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def last_words(self) -> str:
        """Why it has hung up."""
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "hung up without ending"
        if code >= 0:
            return f"ended with exit code {code}"
        why = ", most often for want of memory" if code == -signal.SIGKILL else ""
        return f"was ended by signal {-code}{why}"

    def end(self, seconds: float = 0.0) -> None:
        """End it, and what it has started, whatever it is at.

        Args:
            seconds: How long it may take to end by itself.
        """
        self.channel.close()
        if seconds:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        with suppress(ProcessLookupError, PermissionError):  # nobody is left in its group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
