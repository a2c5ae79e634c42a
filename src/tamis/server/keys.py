"""Who may call: keys in a file, of which it holds digests alone.

One key a line: the SHA-256 of the key in hex, the name of who has it and, if wanted, how many
tokens that name may have waiting or running. `#` starts a comment. Several keys may share a name,
so that an old one goes on while a new one is handed out. The file is read again when it changes,
once it is whole: a thread looks at it, and takes what was the same at two looks, can be read and
ends with a line break.
"""

import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from tamis.engine.files import open_regular
from tamis.errors import SettingsError, UnsafeModelError

logger = logging.getLogger(__name__)

KEY_PREFIX = "tamis_"
"""What scanners for leaked secrets can look for."""
SECONDS_BETWEEN_LOOKS = 1.0
"""At the file, for changes: a withdrawn key works no longer than two of them, and the reading."""
SECONDS_UNTIL_WHOLE = 10.0
"""A file without a line break at its end is taken after this time without a change."""
MOST_FILE_BYTES = 16 * 2**20
"""Some 200,000 keys."""

_DIGEST_OF_NOTHING = sha256(b"").hexdigest()
_LINE = re.compile(
    r"(?P<digest>[0-9a-f]{64})\s+(?P<name>[A-Za-z0-9._-]{1,64})(\s+(?P<tokens>[1-9]\d{0,11}))?"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        name: The name of its key, or of its keys: they are one caller, with one place in the queue.
        max_queued_tokens: Tokens it may have waiting or running; None for no bound of its own.
    """

    name: str
    max_queued_tokens: int | None = None


ANYONE = Caller("")
"""Who calls a server without keys."""


_NOBODY = (bytes(sha256().digest_size), None)
"""What a key that nobody has is compared with."""

Keys = dict[bytes, tuple[bytes, Caller | None]]
"""Digest -> the same digest, and whose it is."""
Stamp = tuple[int, ...]


class KeyFile:
    """The keys of a file, as they were when it was last whole.

    Raises:
        SettingsError: it cannot be read, or holds no key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_as, text = self._read()
        self._keys = _parsed(text, path)
        self._seen = self._read_as
        self._complaint: str | None = None
        self._cut: tuple[Stamp, float] | None = None  # without a last line break, since when
        self._asked: SimpleQueue[bool] = SimpleQueue()

    def find(self, key: bytes) -> Caller | None:
        """Whose key this is: one look-up and one comparison, for a good one as for a bad one."""
        digest = sha256(key).digest()
        known, caller = self._keys.get(digest, _NOBODY)
        return caller if hmac.compare_digest(known, digest) else None

    def follow(self) -> None:
        """Look at the file from now on, in a thread of its own: it may be slow to read."""
        Thread(target=self._follow, name="tamis-keys", daemon=True).start()

    def reload(self) -> None:
        """Read the file now, whatever it looks like; returns at once, a signal may ask for it."""
        self._asked.put(item=True)

    def close(self) -> None:
        """Look no more."""
        self._asked.put(item=False)

    def look(self) -> None:
        """Take what has changed, if it is as it was at the last look: nobody is writing it then."""
        try:
            stamp = _stamp_of(self._path.stat())
        except OSError as error:
            self._complain(f"cannot read {self._path}: {error.strerror or error}")
            return
        is_settled, self._seen = stamp == self._seen, stamp
        if is_settled and stamp != self._read_as:
            self.read()

    def read(self) -> None:
        """Take the file's keys; one that cannot be read or has none changes nothing."""
        try:
            stamp, text = self._read()
        except SettingsError as error:
            self._complain(str(error))
            return
        if stamp != self._seen:  # somebody is writing it
            return
        if self._may_be_cut(text, stamp):
            self._complain(
                f"the last line of {self._path} has no line break, as if it were still being "
                f"written; the file is read as it is once it has not changed for "
                f"{SECONDS_UNTIL_WHOLE:.0f} s"
            )
            return
        try:
            self._keys = _parsed(text, self._path)
        except SettingsError as error:
            self._complain(str(error))
        else:
            self._complaint = None
            logger.info("%d keys reloaded", len(self._keys))
        self._read_as = stamp  # what is wrong with it stays so until it changes

    def _may_be_cut(self, text: str, stamp: Stamp) -> bool:
        """Whether the last line may lack a part of its name or number."""
        if not text or text.endswith("\n"):
            return False
        if self._cut is None or self._cut[0] != stamp:
            self._cut = (stamp, time.monotonic())
        return time.monotonic() - self._cut[1] < SECONDS_UNTIL_WHOLE

    def _follow(self) -> None:
        while all(asked := self._asked_since()):
            self._look_whatever_happens(is_asked=bool(asked))

    def _asked_since(self) -> list[bool]:
        """All that was asked since the last look, answered by one; nothing when the next is due."""
        asked: list[bool] = []
        with suppress(Empty):
            asked.append(self._asked.get(timeout=SECONDS_BETWEEN_LOOKS))
            while True:
                asked.append(self._asked.get_nowait())
        return asked

    def _look_whatever_happens(self, *, is_asked: bool) -> None:
        """One look, and a reading if one is asked for; what goes wrong is tried again in the next.

        Without this thread a withdrawn key would be let in for ever.
        """
        try:
            self.look()
            if is_asked:
                self.read()
        except Exception as error:  # noqa: BLE001 - of any kind: memory may be short for a while
            with suppress(Exception):  # for a line of the log, too
                self._complain(f"cannot read {self._path}: {type(error).__name__}")

    def _complain(self, sentence: str) -> None:
        """Say what is wrong, once."""
        if sentence != self._complaint:
            self._complaint = sentence
            logger.error("the keys stay as they were: %s", sentence)

    def _read(self) -> tuple[Stamp, str]:
        """The file's text, and how it looked meanwhile: like no file where it was written.

        Raises:
            SettingsError: it cannot be read.
        """
        try:
            with open_regular(self._path) as file:
                before = _stamp_of(os.fstat(file.fileno()))
                content = file.read(MOST_FILE_BYTES + 1)
                is_still = _stamp_of(os.fstat(file.fileno())) == before
            text = content.decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise SettingsError(f"cannot read {self._path}: {reason}") from error
        except UnsafeModelError as error:
            raise SettingsError(str(error)) from error
        if len(content) > MOST_FILE_BYTES:
            raise SettingsError(f"{self._path} has more than {MOST_FILE_BYTES:,} bytes")
        return before if is_still else (), text


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The one key in `Authorization: Bearer` or `X-API-Key`; nothing if there are two, or none."""
    given = [(name, value) for name, value in headers if name in (b"authorization", b"x-api-key")]
    if len(given) != 1:
        return b""
    name, value = given[0]
    if name == b"x-api-key":
        return value.strip()
    scheme, _, key = value.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def make_key(name: str, max_queued_tokens: int | None = None) -> tuple[str, str]:
    """A new key, and its line for the file.

    Raises:
        SettingsError: the name, or the number of tokens, is none that a line can have.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    digest = sha256(key.encode()).hexdigest()
    line = f"{digest} {name}" + (f" {max_queued_tokens}" if max_queued_tokens is not None else "")
    if not _LINE.fullmatch(line):
        raise SettingsError(
            "a name has 1 to 64 letters, digits, dots, dashes or underscores, and tokens are 1 "
            "or more"
        )
    return key, line


def _stamp_of(status: os.stat_result) -> Stamp:
    """What changes when a file does."""
    # a change of permissions or owner is a change, too: what could not be read can be now
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _parsed(text: str, path: Path) -> Keys:
    """The keys of a file's lines.

    Raises:
        SettingsError: a line is none of a key, or there is no key.
    """
    keys: Keys = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        found = _LINE.fullmatch(content)
        if found and found["digest"] == _DIGEST_OF_NOTHING:
            raise SettingsError(
                f"{path} line {number} is the digest of no key at all, with which anyone could "
                "call; was a variable empty?"
            )
        digest = bytes.fromhex(found["digest"]) if found else b""
        if not found or digest in keys:
            raise SettingsError(
                f"{path} line {number} is not `SHA-256-IN-HEX NAME [TOKENS]`, or a key that is "
                "there already; `tamis keys make NAME` writes such lines"
            )
        tokens = found["tokens"]
        keys[digest] = (digest, Caller(found["name"], int(tokens) if tokens else None))
    if not keys:
        raise SettingsError(f"{path} holds no key; `tamis keys make NAME` makes one")
    return keys
