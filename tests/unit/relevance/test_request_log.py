import json
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tamis.errors import SettingsError
from tamis.relevance import request_log
from tamis.relevance.request_log import RequestLog, RotatingFile
from tamis.settings import RelevanceSettings
from tamis.types import RerankRequest
from tests.rankings import ranking

FULL_DISK = Path("/dev/full")


@contextmanager
def log_to(path: Path, **options: Any) -> Iterator[RequestLog]:
    given = {"log_file": path, "log_share": 1.0} | options
    log = RequestLog(RelevanceSettings.model_validate(given))
    try:
        yield log
    finally:
        log.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_texts_are_digests_unless_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        with log_to(path, log_key="k") as log:
            log.offer(
                ranking([1.0, float("nan")], request_id="r"), RerankRequest("secret", ("a", "a"))
            )
    first, second = lines(path)
    assert "secret" not in path.read_text()
    assert first["is_text"] is False
    assert first["documents"][0] == first["documents"][1] != first["query"]
    assert first["query"] == second["query"]
    assert len(first["query"]) == 64
    assert (first["request_id"], first["logits"]) == ("r", [1.0, None])


def test_digests_of_another_key_or_of_none_are_other_digests(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for options in ({"log_key": "k"}, {"log_key": "l"}, {}, {}):
        with log_to(path, **options) as log:
            log.offer(ranking(), RerankRequest("q", ("a",)))
    assert len({line["query"] for line in lines(path)}) == 4


def test_an_empty_key_is_none(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        with log_to(path, log_key="") as log:
            log.offer(ranking(), RerankRequest("q", ()))
    first, second = lines(path)
    assert first["query"] != second["query"]


def test_texts_that_are_asked_for_are_there(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with log_to(path, log_texts=True) as log:
        log.offer(ranking([0.5], caller="web", n_shown=0), RerankRequest("苹果", ("ä",)))
    (line,) = lines(path)
    assert (line["query"], line["documents"], line["is_text"]) == ("苹果", ["ä"], True)
    assert (line["caller"], line["n_shown"], line["n_tokens"]) == ("web", 0, 10)


def test_the_share_is_what_is_written(tmp_path: Path) -> None:
    draws = iter([0.1, 0.3, 0.2, 0.25])
    options = {"log_file": tmp_path / "l", "log_share": 0.25, "log_texts": True}
    log = RequestLog(RelevanceSettings.model_validate(options), draw=lambda: next(draws))
    for query in "abcd":
        log.offer(ranking(), RerankRequest(query, ()))
    log.close()
    assert [line["query"] for line in lines(tmp_path / "l")] == ["a", "c"]


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    with log_to(tmp_path / "l") as log:
        log.offer(ranking(), RerankRequest("q", ()))
    assert stat.S_IMODE((tmp_path / "l").stat().st_mode) == 0o600


def test_a_file_that_others_could_read_is_its_owners_too(tmp_path: Path) -> None:
    (tmp_path / "l").touch(0o644)
    with log_to(tmp_path / "l", log_texts=True) as log:
        log.offer(ranking(), RerankRequest("q", ()))
    assert stat.S_IMODE((tmp_path / "l").stat().st_mode) == 0o600


def test_files_are_bounded_and_every_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "l"
    file = RotatingFile(path, 1000)
    for number in range(100):
        assert file.write(f"{number:09}\n".encode())
    file.close()
    before = path.with_name("l.1")
    assert path.stat().st_size + before.stat().st_size <= 1000
    found = (before.read_text() + path.read_text()).split()
    assert found == [f"{number:09}" for number in range(100 - len(found), 100)]
    assert len(found) > 50


def test_a_line_that_no_file_can_hold_is_left_out(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "l", 1000)
    assert not file.write(b"x" * 501)
    assert file.write(b"x" * 500)
    file.close()


def test_a_file_that_is_there_is_gone_on_with(tmp_path: Path) -> None:
    for content in (b"a\n", b"b\n"):
        file = RotatingFile(tmp_path / "l", 1000)
        file.write(content)
        file.close()
    assert (tmp_path / "l").read_bytes() == b"a\nb\n"


def test_a_disk_that_fills_up_leaves_no_torn_line(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "l", 1000)
    file.write(b"0123456789\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, before[1]))  # room for a part of a line
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                file.write(b"abcdefghij\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.write(b"ABCDEFGHIJ\n")
    file.close()
    assert (tmp_path / "l").read_bytes() == b"0123456789\nABCDEFGHIJ\n"


def test_a_disk_that_is_full_fails_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with log_to(FULL_DISK) as log:
        for _ in range(3):
            log.offer(ranking(), RerankRequest("secret", ()))
    assert log.n_dropped == 3
    assert len(caplog.records) == 1
    assert "cannot be written" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [MemoryError(), ValueError("secret"), RecursionError()])
def test_an_error_of_any_kind_leaves_one_request_out_and_not_all_that_follow(
    tmp_path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write, failures = RotatingFile.write, [error]

    def failing(self: RotatingFile, line: bytes) -> bool:
        if failures:
            raise failures.pop()
        return write(self, line)

    monkeypatch.setattr(RotatingFile, "write", failing)
    with log_to(tmp_path / "l", log_texts=True) as log:
        for query in ("first", "second"):
            log.offer(ranking(), RerankRequest(query, ()))
    assert [line["query"] for line in lines(tmp_path / "l")] == ["second"]
    assert (log.n_dropped, log._n_waiting) == (1, 0)
    assert f"cannot be written: {type(error).__name__}" in caplog.text
    assert "secret" not in caplog.text


def test_what_a_slow_disk_cannot_take_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "MOST_WAITING_CHARACTERS", 10)
    gate = threading.Event()
    write = RotatingFile.write

    def slow(self: RotatingFile, line: bytes) -> bool:
        gate.wait(10)
        return write(self, line)

    monkeypatch.setattr(RotatingFile, "write", slow)
    with log_to(tmp_path / "l") as log:
        log.offer(ranking(), RerankRequest("12345678", ()))
        log.offer(ranking(), RerankRequest("12345678", ()))
        log.offer(ranking(), RerankRequest("12", ()))
        gate.set()
    assert log.n_dropped == 1
    assert len(lines(tmp_path / "l")) == 2


def test_many_short_documents_take_no_more_room_than_long_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "MOST_WAITING_CHARACTERS", 1000)
    gate = threading.Event()
    write = RotatingFile.write

    def slow(self: RotatingFile, line: bytes) -> bool:
        gate.wait(10)
        return write(self, line)

    monkeypatch.setattr(RotatingFile, "write", slow)
    with log_to(tmp_path / "l") as log:
        log.offer(ranking([0.0] * 900), RerankRequest("q", ("a",) * 900))
        gate.set()
    assert log.n_dropped == 1


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot write"), log_to(tmp_path / "none" / "l"):
        pass


def test_a_fifo_that_nobody_reads_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SettingsError, match="cannot write"):
        RequestLog(RelevanceSettings(log_file=tmp_path / "fifo"))
