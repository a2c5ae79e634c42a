"""The log's line for a request says who called, which path, and why it failed."""

from collections.abc import Iterator, MutableMapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.faults.raw import exchange, head
from tests.integration.serving import Served, serving_fake, until

KEY = "tamis_a-key"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that knows one key."""
    path: Path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text(f"{sha256(KEY.encode()).hexdigest()} web\n")
    with serving_fake(server={"keys_file": path}) as server:
        yield server


def request_line(lines: Sequence[MutableMapping[str, Any]]) -> MutableMapping[str, Any]:
    """The line of the one request; it is written once the answer is."""
    until(lambda: any(line["event"] == "request" for line in lines))
    (line,) = [line for line in lines if line["event"] == "request"]
    return line


@pytest.mark.parametrize(
    ("method", "path", "key", "expected"),
    [
        ("GET", "/v1/limits", KEY, (200, "/v1/limits", None, "web")),
        ("POST", "/v1/limits", "", (401, "/v1/limits", "unauthorized", None)),
        ("GET", "/nowhere", KEY, (404, "/nowhere", "http_error", "web")),
        ("GET", "/nowhere", "", (401, "/nowhere", "unauthorized", None)),
        ("GET", "/rerank", KEY, (405, "/rerank", "http_error", "web")),
        ("POST", "/rerank", KEY, (400, "/rerank", "malformed_body", "web")),
        ("POST", "/v1/feedback", KEY, (400, "/v1/feedback", "malformed_body", "web")),
    ],
)
def test_a_line_has_caller_path_and_error_code(
    guarded: Served, method: str, path: str, key: str, expected: tuple[Any, ...]
) -> None:
    with structlog.testing.capture_logs() as lines:
        guarded.client.request(method, path, headers={"x-api-key": key} if key else {})
        line = request_line(lines)
    assert (line["status"], line["path"], line["error_code"], line["caller"]) == expected


def test_a_path_that_leads_nowhere_is_short_and_ascii_in_the_log(guarded: Served) -> None:
    path = "/%1b%5b31m%0a" + "x" * 5_000
    asked = head("Connection: close", f"X-API-Key: {KEY}", start=f"GET {path} HTTP/1.1")
    with structlog.testing.capture_logs() as lines:
        assert exchange(guarded, asked).status == 404
        line = request_line(lines)
    assert line["path"].startswith("/%1B%5B31m%0Axxx")
    assert len(line["path"]) < 200
