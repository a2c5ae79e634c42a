import logging
import threading
from typing import Any

from tamis.observability.log_rate import (
    BURST_LINES,
    BURST_SECONDS,
    LINES_PER_SECOND,
    MOST_KINDS,
    SECONDS_BETWEEN_COUNTS,
    LogRate,
)


class Clock:
    """Seconds that a test puts forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def record(message: Any, line: int = 1, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("tamis", level, "file.py", line, message, None, None)


def request(status: int, error_code: str | None = None) -> logging.LogRecord:
    return record({"event": "request", "status": status, "error_code": error_code})


def admitted(rate: LogRate, line: logging.LogRecord, n_lines: int = 1000) -> int:
    return sum(rate.admits(line) for _ in range(n_lines))


def told(rate: LogRate, *, is_end: bool = False) -> list[str]:
    return [line.getMessage() for line in rate.counts(is_end=is_end)]


def test_a_burst_is_let_through_and_then_some_a_second() -> None:
    clock = Clock()
    rate = LogRate(20, clock)
    assert admitted(rate, record("refused: %s")) == BURST_LINES
    clock.now += 10
    assert admitted(rate, record("refused: %s")) == 10 * LINES_PER_SECOND
    clock.now += 10_000
    assert admitted(rate, record("refused: %s")) == BURST_LINES


def test_kinds_have_their_own_rates() -> None:
    rate = LogRate(20, Clock())
    lines = [
        record("one", 1),
        record("one", 2),
        record("one", 1, logging.ERROR),
        request(404, "http_error"),
        request(401, "unauthorized"),
        request(404, "unknown_request"),
    ]
    assert [admitted(rate, line) for line in lines] == [BURST_LINES] * len(lines)


def test_what_was_filled_into_a_message_makes_no_kind() -> None:
    rate = LogRate(20, Clock())
    assert sum(rate.admits(record(f"port {n}")) for n in range(1000)) == BURST_LINES


def test_answered_requests_have_a_rate_of_their_own() -> None:
    clock = Clock()
    rate = LogRate(7, clock)
    assert admitted(rate, request(200)) == 7 * BURST_SECONDS
    clock.now += 2
    assert admitted(rate, request(200)) == 14


def test_what_was_left_out_is_told_once_in_a_while_and_at_the_end() -> None:
    clock = Clock()
    rate = LogRate(20, clock)
    admitted(rate, request(401, "unauthorized"))
    left_out = 1000 - BURST_LINES
    assert rate.n_left_out == left_out
    assert told(rate) == []
    clock.now += SECONDS_BETWEEN_COUNTS
    assert told(rate) == [f"{left_out} more lines were left out: request 401 unauthorized"]
    assert told(rate, is_end=True) == []
    admitted(rate, request(401, "unauthorized"))
    assert told(rate) == []
    clock.now += SECONDS_BETWEEN_COUNTS
    assert told(rate) == ["995 more lines were left out: request 401 unauthorized"]
    rate.admits(record("x"))
    assert told(rate, is_end=True) == []


def test_the_kinds_are_bounded() -> None:
    rate = LogRate(20, Clock())
    n_lines = sum(rate.admits(record("x", line)) for line in range(10 * MOST_KINDS))
    assert n_lines == MOST_KINDS + BURST_LINES
    (one,) = rate.counts(is_end=True)
    assert (
        one.getMessage() == f"{10 * MOST_KINDS - n_lines} more lines were left out: of many kinds"
    )


def test_nobody_waits_for_whoever_writes_the_counts() -> None:
    """A thread that holds the writer's lock may ask, and the writer may want that lock."""
    rate = LogRate(20, Clock())
    for line in (1, 2):
        admitted(rate, record("x", line))
    n_told = 0
    for _ in rate.counts(is_end=True):
        asking = threading.Thread(target=rate.admits, args=(record("y"),), daemon=True)
        asking.start()
        asking.join(5)
        assert not asking.is_alive()
        rate.admits(record("of a new kind", 100 + n_told))
        n_told += 1
    assert n_told == 2
