import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from tamis.bench.server import measure_server, served_model
from tamis.bench.workloads import Workload
from tamis.errors import SettingsError

CALLERS = 3
WORKLOADS = [Workload(f"query {number}", ("a", "b")) for number in range(2 * CALLERS)]


class Answers(BaseHTTPRequestHandler):
    """Answers to the first request at once, to the others when CALLERS of them are there."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[dict[str, Any]]] = []
    together: ClassVar[threading.Barrier]
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(json.loads(body))
        if len(self.asked) > 1:
            self.together.wait(30)
        self._answer(self.status, b'"not so"')

    def do_GET(self) -> None:
        self._answer(404, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


@pytest.fixture(name="url")
def fixture_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Answers, "asked", [])
    monkeypatch.setattr(Answers, "together", threading.Barrier(CALLERS), raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_each_workload_is_sent_once_by_callers_at_a_time(url: str) -> None:
    report = measure_server(url, WORKLOADS, concurrency=CALLERS)
    warm_up, *counted = Answers.asked
    assert warm_up == {"query": "query 0", "documents": ["a", "b"]}
    assert sorted(body["query"] for body in counted) == [work.query for work in WORKLOADS]
    assert (report.concurrency, report.n_pairs) == (CALLERS, 4 * CALLERS)
    assert report.latency.n_requests == len(WORKLOADS)
    assert report.pairs_per_second == pytest.approx(2 * report.requests_per_second)


def test_a_refusal_is_quoted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "status", 422)
    with pytest.raises(SettingsError, match=f'{url} does not rerank: 422 "not so"'):
        measure_server(url, WORKLOADS, concurrency=CALLERS)


def test_a_server_that_is_no_tamis_says_nothing_of_its_model(url: str) -> None:
    assert served_model(url) == {}
