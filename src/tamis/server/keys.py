"""Who may call: keys in a file, of which it holds digests alone.

One key a line: the SHA-256 of the key in hex, the name of who has it and, if wanted, how many
tokens that name may have waiting or running. `#` starts a comment. Several keys may share a name,
so that an old one goes on while a new one is handed out. The file is read again when it changes.
"""

import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tamis.errors import SettingsError

logger = logging.getLogger(__name__)

KEY_PREFIX = "tamis_"
"""What scanners for leaked secrets can look for."""
SECONDS_BETWEEN_LOOKS = 1.0
"""At the file, for changes: a withdrawn key works no longer than that."""

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


class KeyFile:
    """The keys of a file, as it is now.

    Raises:
        SettingsError: it cannot be read, or holds no key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_at = time.monotonic()
        self._stamp = self._stamp_now()
        self._callers = self._read()
        if not self._callers:
            raise SettingsError(f"{path} holds no key; `tamis keys make NAME` makes one")

    def find(self, key: bytes) -> Caller | None:
        """Whose key this is; takes as long for a good one as for a bad one."""
        self._look_again()
        digest = sha256(key).hexdigest()
        found = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, digest):
                found = caller  # no break: the time must not tell how far it got
        return found

    def _look_again(self) -> None:
        """Follow the file's changes; one that cannot be read changes nothing."""
        now = time.monotonic()
        if now - self._looked_at < SECONDS_BETWEEN_LOOKS:
            return
        self._looked_at = now
        try:
            stamp = self._stamp_now()
            if stamp != self._stamp:
                self._stamp = stamp
                self._callers = self._read()
                logger.info("%d keys read anew", len(self._callers))
        except SettingsError as error:
            logger.error("the keys stay as they were: %s", error)  # noqa: TRY400 - no news in the trace

    def _stamp_now(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise SettingsError(f"cannot read {self._path}: {error.strerror or error}") from error
        # a change of permissions or owner is a change, too: what could not be read can be now
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def _read(self) -> dict[str, Caller]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise SettingsError(f"cannot read {self._path}: {reason}") from error
        return _parsed(lines, self._path)


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


def _parsed(lines: Iterable[str], path: Path) -> dict[str, Caller]:
    callers: dict[str, Caller] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = _LINE.fullmatch(text)
        if found and found["digest"] == _DIGEST_OF_NOTHING:
            raise SettingsError(
                f"{path} line {number} is the digest of no key at all, with which anyone could "
                "call; was a variable empty?"
            )
        if not found or found["digest"] in callers:
            raise SettingsError(
                f"{path} line {number} is not `SHA-256-IN-HEX NAME [TOKENS]`, or a key that is "
                "there already; `tamis keys make NAME` writes such lines"
            )
        tokens = found["tokens"]
        callers[found["digest"]] = Caller(found["name"], int(tokens) if tokens else None)
    return callers
