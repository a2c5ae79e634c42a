"""A sample of requests for later judging: opt-in JSONL, bounded, written by a thread of its own."""

import errno
import hmac
import logging
import os
import queue
import random
import secrets
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from io import FileIO
from pathlib import Path

import msgspec

from tamis.errors import SettingsError
from tamis.relevance.signals import Ranking
from tamis.settings import RelevanceSettings
from tamis.types import RerankRequest

logger = logging.getLogger(__name__)

MAX_BYTES = 100 * 2**20
"""Of the file and the one before it, `NAME.1`."""
MOST_WAITING_CHARACTERS = 16 * 2**20
"""Of texts that wait for the disk; a request beyond them is left out."""
CHARACTERS_A_DOCUMENT = 100
"""Memory counted for a document in addition to its text: its logit, and the objects around both."""
CLOSE_SECONDS = 5.0
"""What a disk gets at the server's end."""
OWN_EYES_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class _Entry:
    """A request that waits to be written."""

    time: datetime
    ranking: Ranking
    query: str
    documents: Sequence[str]
    n_characters: int


class Line(msgspec.Struct):
    """One request.

    Attributes:
        query: Its text, or its digest.
        documents: Their texts, or their digests, in the order given.
        logits: In the same order; None where there is none.
        is_text: Which of the two it is.
    """

    time: datetime
    request_id: str
    model: str
    dialect: str
    caller: str
    is_text: bool
    query: str
    documents: list[str]
    logits: list[float | None]
    n_truncated: int
    n_tokens: int
    n_shown: int


class RotatingFile:
    """A file that becomes `NAME.1`, in place of the last one so called, before it is too large.

    Only its owner can read it.

    Args:
        path: Where it is; what is there already stays.
        max_bytes: Of both files together.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes // 2
        self._file = self._open()

    def write(self, line: bytes) -> bool:
        """Put a line in the system's hands, whole or not at all. False if no file can hold it.

        Raises:
            OSError: the disk did not take it.
        """
        if len(line) > self._max_bytes:
            return False
        if self._file.closed:  # it could not be opened again when it was last to be
            self._file = self._open()
        start = self._end()
        if start and start + len(line) > self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._open()
            start = self._end()
        if self._file.write(line) != len(line):
            self._file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _open(self) -> FileIO:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK  # a FIFO is not waited for
        descriptor = os.open(self._path, flags, OWN_EYES_ONLY)
        os.set_blocking(descriptor, True)
        opened = FileIO(descriptor, "ab")
        opened.seek(0, os.SEEK_END)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # one that was there may be open to others
            os.fchmod(descriptor, OWN_EYES_ONLY)
        return opened

    def _end(self) -> int:
        """Where the next line begins: after a torn one was cut off, not where that one ended."""
        return self._file.seek(0, os.SEEK_END)


class RequestLog:
    """Writes a share of all requests; never in the way of an answer, and never its failure.

    Args:
        settings: `log_file` is set.
        draw: Numbers from 0 to 1, for the sample.

    Attributes:
        n_dropped: Requests of the sample that were not written.

    Raises:
        SettingsError: the file cannot be opened.
    """

    def __init__(
        self,
        settings: RelevanceSettings,
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if settings.log_file is None:
            raise SettingsError("relevance.log_file is not set")
        try:
            self._file = RotatingFile(settings.log_file, MAX_BYTES)
        except OSError as error:
            reason = error.strerror or error
            raise SettingsError(f"cannot write {settings.log_file}: {reason}") from error
        self._share = settings.log_share
        self._has_texts = settings.log_texts
        self._key = (
            settings.log_key.get_secret_value().encode()
            if settings.log_key  # an empty one keeps nothing secret
            else secrets.token_bytes(32)
        )
        self._draw = draw
        self._n_waiting = 0
        self._turn = threading.Lock()
        self._is_failing = False
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self.n_dropped = 0
        self._thread = threading.Thread(
            target=self._write_all, name="tamis-request-log", daemon=True
        )
        self._thread.start()

    def offer(self, ranking: Ranking, request: RerankRequest) -> None:
        """Write a request if the sample takes it and there is room; returns at once."""
        if self._draw() >= self._share:
            return
        texts = request.texts()
        n_characters = len(request.query) + sum(len(text) + CHARACTERS_A_DOCUMENT for text in texts)
        with self._turn:
            if self._n_waiting + n_characters > MOST_WAITING_CHARACTERS:
                self.n_dropped += 1
                return
            self._n_waiting += n_characters
        self._entries.put(_Entry(datetime.now(UTC), ranking, request.query, texts, n_characters))

    def close(self) -> None:
        """Write what waits, for some seconds at most."""
        self._entries.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _write_all(self) -> None:
        while (entry := self._entries.get()) is not None:
            try:
                self._write(entry)
            finally:
                with self._turn:
                    self._n_waiting -= entry.n_characters
        with suppress(OSError):
            self._file.close()

    def _write(self, entry: _Entry) -> None:
        """A disk that is full is said once, and again once it has been well in between.

        Nothing ends the thread: entries would wait for ever.
        """
        try:
            written = self._file.write(msgspec.json.encode(self._line(entry)) + b"\n")
        except Exception as error:  # noqa: BLE001 - of any kind, as where memory is short
            if not self._is_failing:
                # any other error's message may hold a text
                reason = error if isinstance(error, OSError) else type(error).__name__
                logger.error("the request log cannot be written: %s", reason)  # noqa: TRY400 - no news in the trace
            self._is_failing, written = True, False
        else:
            self._is_failing = False
        if not written:
            with self._turn:
                self.n_dropped += 1

    def _line(self, entry: _Entry) -> Line:
        ranking = entry.ranking
        shown = str if self._has_texts else self._digest
        return Line(
            time=entry.time,
            request_id=ranking.request_id,
            model=ranking.model,
            dialect=ranking.dialect,
            caller=ranking.caller,
            is_text=self._has_texts,
            query=shown(entry.query),
            documents=[shown(document) for document in entry.documents],
            logits=[None if logit != logit else logit for logit in ranking.logits],  # NaN
            n_truncated=ranking.n_truncated,
            n_tokens=ranking.n_tokens,
            n_shown=ranking.n_shown,
        )

    def _digest(self, text: str) -> str:
        """Equal for equal texts, and without the key no way to try texts out."""
        return hmac.new(self._key, text.encode(), sha256).hexdigest()
