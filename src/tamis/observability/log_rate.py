"""How often lines of one kind are logged: what callers can cause by the thousand fills no disk."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

LINES_PER_SECOND = 0.5
BURST_LINES = 20
BURST_SECONDS = 10
"""Of answered requests, at their own rate."""
SECONDS_BETWEEN_COUNTS = 10.0
"""From one line that says how many of a kind were left out to the next."""
MOST_KINDS = 1000
"""Told apart; there are as many as there are calls of a logger, statuses and error codes."""
_LONGEST_NAME = 80


class Kind(NamedTuple):
    """Lines that share one rate: those of one call of a logger, requests by their outcome, too."""

    logger: str
    level: int
    path: str
    line: int
    status: object = None
    error_code: object = None


OTHER = Kind("tamis.log", logging.INFO, "", 0)
"""All beyond `MOST_KINDS`."""


@dataclass(slots=True)
class _Bucket:
    """A token bucket, and what did not fit.

    Attributes:
        name: What a person calls such lines.
        rate: Tokens that come back in a second.
        burst: Tokens at most.
        n_left_out: Lines since the last count.
        counted_at: When that was, or the first line, in seconds of the clock.
    """

    name: str
    rate: float
    burst: float
    at: float
    tokens: float = field(init=False)
    n_left_out: int = 0
    counted_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens, self.counted_at = self.burst, self.at

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            self.n_left_out += 1
            return False
        self.tokens -= 1
        return True


class LogRate:
    """Lets some lines of each kind through and counts the rest.

    Args:
        requests_per_second: Lines about requests that were answered without an error.
        clock: Seconds that only go up.

    Attributes:
        n_left_out: Lines so far.
    """

    def __init__(
        self, requests_per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests_per_second = requests_per_second
        self._clock = clock
        self._buckets: dict[Kind, _Bucket] = {}
        self._turn = threading.RLock()  # a signal's handler may log in the midst of this
        self.n_left_out = 0

    def admits(self, record: logging.LogRecord) -> bool:
        """Whether a line is to be written."""
        kind, now = _kind_of(record), self._clock()
        with self._turn:
            if kind not in self._buckets and len(self._buckets) >= MOST_KINDS:
                kind = OTHER
            bucket = self._buckets.get(kind)
            if bucket is None:
                bucket = self._buckets[kind] = self._bucket(kind, record, now)
            is_admitted = bucket.take(now)
            self.n_left_out += not is_admitted
        return is_admitted

    def counts(self, *, is_end: bool = False) -> list[logging.LogRecord]:
        """A line for each kind of which some were left out.

        Args:
            is_end: Whether all are told now, as there will be no other time.
        """
        now, lines = self._clock(), list[logging.LogRecord]()
        with self._turn:  # and not while they are written, which waits for other locks
            for kind, bucket in tuple(self._buckets.items()):
                is_due = is_end or now - bucket.counted_at >= SECONDS_BETWEEN_COUNTS
                if bucket.n_left_out and is_due:
                    n_left_out, bucket.n_left_out, bucket.counted_at = bucket.n_left_out, 0, now
                    lines.append(_count_line(kind, bucket.name, n_left_out))
        return lines

    def _bucket(self, kind: Kind, record: logging.LogRecord, now: float) -> _Bucket:
        if isinstance(kind.status, int) and kind.status < 400:
            rate, burst = self._requests_per_second, BURST_SECONDS * self._requests_per_second
        else:
            rate, burst = LINES_PER_SECOND, BURST_LINES
        return _Bucket("of many kinds" if kind == OTHER else _name_of(record), rate, burst, now)


def _kind_of(record: logging.LogRecord) -> Kind:
    event = record.msg if isinstance(record.msg, dict) else {}
    return Kind(
        record.name,
        record.levelno,
        record.pathname,
        record.lineno,
        event.get("status"),
        event.get("error_code"),
    )


def _name_of(record: logging.LogRecord) -> str:
    """The message before anything is filled in, which never holds a caller's text."""
    if not isinstance(record.msg, dict):
        return str(record.msg).partition("\n")[0][:_LONGEST_NAME]
    said = (record.msg.get(name) for name in ("event", "status", "error_code"))
    return " ".join(str(one) for one in said if one is not None)[:_LONGEST_NAME]


def _count_line(kind: Kind, name: str, n_left_out: int) -> logging.LogRecord:
    fields = {
        "name": "tamis.log",
        "levelno": kind.level,
        "levelname": logging.getLevelName(kind.level),
        "msg": "%d more lines were left out: %s",
        "args": (n_left_out, name),
    }
    return logging.makeLogRecord(fields)
