"""A log that is written by a thread, whatever becomes of the other end."""

import fcntl
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from tamis.observability import log_writer
from tamis.observability.log_rate import LogRate
from tamis.observability.log_writer import MOST_WAITING_BYTES, LogWriter
from tests.integration.serving import until

MANY = 10**9
INFO = {"levelno": logging.INFO}


class Pipe:
    """A stderr that a test reads, or does not."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        self.writer = os.fdopen(writer, "w")
        self.handler = LogWriter(self.writer, LogRate(MANY))
        self.logger = logging.Logger("test")  # noqa: LOG001 - one that no other test shares
        self.logger.addHandler(self.handler)

    def log(self, number: int, length: int = 0) -> None:
        """A line, of a kind that no rate bounds."""
        self.logger.info({"event": number, "status": 200, "rest": "x" * length})

    def read(self) -> bytes:
        """What is there; empty once the other end is closed."""
        return os.read(self.reader, 65_536)

    def close(self) -> None:
        self.handler.close()
        os.set_blocking(self.reader, False)
        while self.handler._thread.is_alive():
            try:
                self.read()
            except BlockingIOError:
                self.handler._thread.join(0.01)
        self.writer.close()
        os.close(self.reader)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    opened.close()


def read_until(pipe: Pipe, found: Callable[[str], bool]) -> str:
    """Everything, up to a sign."""
    text = ""
    while not found(text):
        text += pipe.read().decode()
    return text


def test_lines_come_whole_and_in_order(pipe: Pipe) -> None:
    for number in range(100):
        pipe.log(number, 100)
    text = read_until(pipe, lambda text: text.count("\n") == 100)
    assert [line.partition(",")[0] for line in text.splitlines()] == [
        f"{{'event': {number}" for number in range(100)
    ]


def test_a_pipe_that_nobody_reads_holds_up_nobody_and_what_is_left_out_is_told(pipe: Pipe) -> None:
    n_lines = 3000
    for number in range(n_lines):
        pipe.log(number, 1000)  # three times what may wait
    assert pipe.handler.n_unread > n_lines // 2
    assert pipe.handler._n_waiting <= MOST_WAITING_BYTES
    text = read_until(pipe, lambda text: "could not be written" in text)
    assert f"{pipe.handler.n_unread} lines of the log could not be written" in text
    assert text.count("'event'") == n_lines - pipe.handler.n_unread


def test_flushing_waits_for_the_reader_but_not_for_ever(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "FLUSH_SECONDS", 0.05)
    for number in range(100):
        pipe.log(number, 1000)
    pipe.handler.flush()  # nobody reads
    assert pipe.handler._n_waiting > 0
    monkeypatch.setattr(log_writer, "FLUSH_SECONDS", 60.0)
    reading = threading.Thread(target=read_until, args=(pipe, lambda text: text.count("\n") == 100))
    reading.start()
    pipe.handler.flush()
    assert pipe.handler._n_waiting == 0
    reading.join(30)
    assert not reading.is_alive()


def test_a_pipe_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer.fileno(), False)
    for number in range(50):
        pipe.log(number, 1000)
    text = read_until(pipe, lambda text: text.count("\n") == 50)
    assert text.count("'event'") == 50
    assert pipe.handler.n_unread == 0


def test_a_pipe_that_is_closed_fails_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        handler = LogWriter(stream, LogRate(MANY))
        for _ in range(3):
            handler.handle(logging.makeLogRecord(INFO | {"msg": "x"}))
        handler.flush()
        until(lambda: handler.n_unread == 3)
        handler.close()
        handler._thread.join(30)
        assert not handler._thread.is_alive()
        assert handler.n_unread == 3


def test_a_line_that_cannot_be_formatted_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    handler = LogWriter(stream, LogRate(MANY))
    handler.handle(logging.makeLogRecord(INFO | {"msg": "%d", "args": ("no number",)}))
    handler.handle(logging.makeLogRecord(INFO | {"msg": "a lone \ud800"}))
    handler.flush()
    handler.close()
    assert handler.n_unread == 1
    assert stream.getvalue().splitlines()[0] == "a lone \\ud800"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_logged", [False, True])
def test_what_ends_the_server_is_the_last_line(*, is_logged: bool) -> None:
    stream = io.StringIO()
    handler = LogWriter(stream, LogRate(MANY))
    for _ in range(100):
        handler.handle(logging.makeLogRecord(INFO | {"msg": "again"}))
    if is_logged:
        handler.expect_end()
        critical = {"levelno": logging.CRITICAL, "msg": "the end"}
        handler.handle(logging.makeLogRecord(critical))
    else:
        handler.end("the end")
    handler.handle(logging.makeLogRecord(INFO | {"msg": "another thread's"}))
    handler.flush()
    handler.close()
    lines = stream.getvalue().splitlines()
    assert lines[-2:] == ["80 more lines were left out: again", "the end"]


def test_a_critical_line_ends_no_log() -> None:
    stream = io.StringIO()
    handler = LogWriter(stream, LogRate(MANY))
    handler.handle(logging.makeLogRecord({"levelno": logging.CRITICAL, "msg": "a library's"}))
    handler.handle(logging.makeLogRecord(INFO | {"msg": "life goes on"}))
    handler.flush()
    handler.close()
    assert stream.getvalue().splitlines() == ["a library's", "life goes on"]
