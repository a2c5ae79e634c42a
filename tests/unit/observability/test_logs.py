import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from tamis.observability.log_rate import BURST_LINES
from tamis.observability.logs import configure_logs
from tamis.settings import LogSettings

CANARY = "canary-7f3a"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configuration = structlog.get_config()
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    logging.captureWarnings(capture=False)
    root.setLevel(level)
    structlog.configure(**configuration)


def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    for handler in logging.getLogger().handlers:
        handler.flush()
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def fail_with_text() -> None:
    """Log an exception while a text of a user's stands in a local variable."""
    document = {"text": CANARY}
    try:
        document["title"]
    except KeyError:
        logging.getLogger("tamis.test").exception("a batch failed")


def test_events_of_structlog_and_logging_are_json_with_the_same_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs(LogSettings(format="json"))
    with structlog.contextvars.bound_contextvars(request_id="r"):
        structlog.stdlib.get_logger("tamis.one").info("request", status=200)
        logging.getLogger("tamis.two").warning("a %s", "warning")
    one, two = map(json.loads, written(capsys))
    assert (one["event"], one["status"], one["request_id"]) == ("request", 200, "r")
    assert (two["event"], two["level"], two["request_id"]) == ("a warning", "warning", "r")
    assert set(one) == {*two, "status"}


def test_a_line_break_in_a_value_breaks_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(format="json"))
    structlog.stdlib.get_logger("tamis").info("request", path="/a\n{}")
    assert len(written(capsys)) == 1


def test_auto_is_json_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings())
    logging.getLogger("tamis").info("event")
    assert json.loads(written(capsys)[0])["event"] == "event"


def test_console_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(format="console"))
    logging.getLogger("tamis").info("an event")
    (line,) = written(capsys)
    assert "an event" in line
    assert not line.startswith("{")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_is_the_least_severe_one_written(
    level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(LogSettings.model_validate({"level": level, "format": "json"}))
    levels = ["debug", "info", "warning", "error"]
    for name in levels:
        getattr(logging.getLogger("tamis"), name)("event")
    found = [json.loads(line)["level"] for line in written(capsys)]
    assert found == levels[levels.index(level) :]


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_shows_no_values_of_variables(
    style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(LogSettings.model_validate({"format": style}))
    fail_with_text()
    log = "\n".join(written(capsys))
    assert "a batch failed" in log
    assert "KeyError: 'title'" in log
    assert CANARY not in log


def test_the_http_client_of_the_hub_logs_no_requests(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(format="json"))
    logging.getLogger("httpx2").info("HTTP Request: GET https://…")
    assert written(capsys) == []


def test_a_warning_of_python_is_a_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(format="json"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("something is old", DeprecationWarning, stacklevel=1)
    (line,) = map(json.loads, written(capsys))
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "something is old" in line["event"]


def test_a_flood_of_one_kind_is_some_lines_and_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(format="json"))
    for _ in range(1000):
        structlog.stdlib.get_logger("tamis").info("request", status=404, error_code="http_error")
    lines = [json.loads(line) for line in written(capsys)]
    shown = [line for line in lines if line["event"] == "request"]
    assert BURST_LINES <= len(shown) < 50
    left_out = f"{1000 - len(shown)} more lines were left out: request 404 http_error"
    assert lines[-1]["event"] == left_out
