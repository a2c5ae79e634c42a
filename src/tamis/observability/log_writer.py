"""Writes the log from a thread of its own: a stderr that nobody reads holds up nothing else."""

import io
import logging
import os
import select
import threading
from collections import deque
from contextlib import suppress
from typing import TextIO

from tamis.observability.log_rate import LogRate

MOST_WAITING_BYTES = 2**20
"""Of lines that wait to be read; those beyond are left out."""
FLUSH_SECONDS = 2.0
"""What the reader of the log gets at the server's end."""
_LOOK_SECONDS = 1.0
"""Between two looks at what the rate has left out."""


class LogWriter(logging.Handler):
    """Formats a line where it is logged and queues it, or counts it where there is no room.

    Args:
        stream: Where lines go.
        rate: Which lines go there at all.

    Attributes:
        n_unread: Lines that could not be written, most often as nobody read the earlier ones.
    """

    def __init__(self, stream: TextIO, rate: LogRate) -> None:
        super().__init__()
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._rate = rate
        self._lines: deque[bytes] = deque()
        self._n_waiting = 0
        self._n_told = 0
        self._is_ending = False
        self._has_last = False
        self._is_closed = False
        self._changed = threading.Condition()  # reentrant: a signal's handler may log, too
        self.n_unread = 0
        self._thread = threading.Thread(target=self._write_all, name="tamis-log", daemon=True)
        self._thread.start()

    @property
    def n_left_out(self) -> int:
        """Lines that the rate has left out."""
        return self._rate.n_left_out

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line and return at once."""
        if self._has_last or not self._rate.admits(record):
            return
        if self._is_ending and record.levelno >= logging.CRITICAL:
            self._tell_counts(is_end=True)
            self._has_last = True  # other threads may still be at work
        self._queue_record(record)

    def expect_end(self) -> None:
        """Take the next CRITICAL line for the last: it says what ends the server."""
        self._is_ending = True

    def end(self, line: str) -> None:
        """Write a line as it is, and none after it."""
        self._tell_counts(is_end=True)
        self._has_last = True
        self._queue(line)

    def flush(self) -> None:
        """Wait until all is written, for some seconds at most."""
        self._tell_counts(is_end=True)
        with self._changed:
            self._changed.wait_for(lambda: not self._n_waiting, FLUSH_SECONDS)

    def close(self) -> None:
        """End the thread once it has written what waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Count a line that cannot be formatted: logging's own way writes to stderr."""
        with self._changed:
            self.n_unread += 1

    def _queue_record(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - of any kind: what is logged fails nothing
            self.handleError(record)
            return
        self._queue(line)

    def _queue(self, line: str) -> None:
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        n_bytes = len(data)
        with self._changed:
            is_full = self._n_waiting and self._n_waiting + n_bytes > MOST_WAITING_BYTES
            if is_full or self._is_closed:
                self.n_unread += 1
                return
            self._lines.append(data)
            self._n_waiting += n_bytes  # no call in it, where a signal's handler could run
            self._changed.notify_all()

    def _tell_counts(self, *, is_end: bool = False) -> None:
        if not self._has_last:
            for record in self._rate.counts(is_end=is_end):
                self._queue_record(record)

    def _write_all(self) -> None:
        while self._wait():
            self._tell_counts()
            with self._changed:
                lines = tuple(self._lines)
                self._lines.clear()
            is_written = self._write(b"".join(lines))
            with self._changed:
                self._n_waiting -= sum(map(len, lines))
                self.n_unread += 0 if is_written else len(lines)
                self._changed.notify_all()
            if is_written and lines:
                self._tell_unread()

    def _wait(self) -> bool:
        """Wait for a line or for a while; False once it is closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._is_closed, _LOOK_SECONDS)
            return bool(self._lines) or not self._is_closed

    def _tell_unread(self) -> None:
        n_lines = self.n_unread - self._n_told
        if n_lines and not self._has_last:
            self._n_told += n_lines
            text = "%d lines of the log could not be written"
            fields = {"name": "tamis.log", "levelno": logging.WARNING, "levelname": "WARNING"}
            self._queue_record(logging.makeLogRecord(fields | {"msg": text, "args": (n_lines,)}))

    def _write(self, data: bytes) -> bool:
        """Whether it went where it should; a closed pipe or a full disk is no one's failure."""
        try:
            if self._descriptor is None:
                self._stream.write(data.decode())
                self._stream.flush()
                return True
            rest = memoryview(data)
            while rest:
                # not by way of the stream: its lock would be held by a write that never ends
                with suppress(BlockingIOError):
                    rest = rest[os.write(self._descriptor, rest) :]
                if rest:
                    select.select([], [self._descriptor], [])
        except (OSError, ValueError):
            return False
        return True


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (io.UnsupportedOperation, AttributeError, ValueError):  # a test's
        return None
