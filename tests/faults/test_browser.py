"""Row 27: a real browser on pages of other origins."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.integration.serving import Served, serving_fake

ATTEMPTS = """
const body = JSON.stringify({query: "canary", documents: ["canary"]});
const attempts = {
  "a request with a body": () => fetch(SERVER + "/rerank",
    {method: "POST", body, headers: {"content-type": "application/json"}}),
  "a request that asks nobody": () => fetch(SERVER + "/rerank", {method: "POST", body}),
  "a request that is not read": () => fetch(SERVER + "/rerank",
    {method: "POST", body, mode: "no-cors", credentials: "include"}),
  "with credentials": () => fetch(SERVER + "/rerank", {method: "POST", body,
    headers: {"content-type": "application/json"}, credentials: "include"}),
  "the limits": () => fetch(SERVER + "/v1/limits"),
};
const found = {};
for (const [name, attempt] of Object.entries(attempts)) {
  try {
    const answer = await attempt();
    found[name] = answer.type === "opaque" ? "unreadable" : answer.status;
  } catch (error) { found[name] = error.name; }
}
document.body.textContent = "found " + JSON.stringify(found) + " end";
"""


def page(server: str) -> bytes:
    """A page that tries what it can against a server, and writes down what it got."""
    script = f"const SERVER = {json.dumps(server)};{ATTEMPTS}"
    html = f'<!doctype html><body><script type="module">{script}</script></body>'
    return html.encode()


@contextmanager
def another_origin(content: bytes, port: int = 0) -> Iterator[str]:
    """A site of somebody else's, on a port of its own."""

    class Site(BaseHTTPRequestHandler):
        """One page, whatever is asked for."""

        def do_GET(self) -> None:
            """Send it."""
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Site) as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


def seen_by_a_browser(url: str, profile: Path, *options: str) -> str:
    """The text of a page after its scripts."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed: `make system`"
    command = [
        *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={profile}", "--no-first-run", "--virtual-time-budget=20000"),
        *("--timeout=30000", *options, "--dump-dom", url),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return unescape(done.stdout)


def attempts_of(server: Served, profile: Path, origin: str) -> dict[str, Any]:
    """What a page of another origin got."""
    text = seen_by_a_browser(origin, profile)
    found = re.search(r"found (\{.*\}) end", text)
    assert found, text
    assert server.client.get("/livez").status_code == 200
    return dict(json.loads(found[1]))


def test_row_27_a_page_of_another_origin_gets_nothing_in_a_browser(tmp_path: Path) -> None:
    with serving_fake() as server, another_origin(page(str(server.client.base_url))) as origin:
        found = attempts_of(server, tmp_path, origin)
        assert found.pop("a request that is not read") == "unreadable"
        assert set(found.values()) == {"TypeError"}
        assert len(found) == 4
        assert server.model.backend.batches == []  # nothing was computed for it either
        assert server.metric("tamis_refusals_total", reason="origin_not_allowed") >= 4


def test_row_27_a_page_of_an_allowed_origin_gets_its_answer_without_credentials(
    tmp_path: Path,
) -> None:
    with another_origin(b"") as origin:  # a port that is free
        port = int(origin.rpartition(":")[2])
    with (
        serving_fake(server={"cors_origins": origin}) as server,
        another_origin(page(str(server.client.base_url)), port),
    ):
        found = attempts_of(server, tmp_path, origin)
    assert found == {
        "a request with a body": 200,
        "a request that asks nobody": 415,
        "a request that is not read": "unreadable",
        "with credentials": "TypeError",
        "the limits": 200,
    }


def test_row_27_a_name_that_was_bound_to_this_address_gets_nothing_in_a_browser(
    tmp_path: Path,
) -> None:
    """The browser believes that `evil.example` is here, as after DNS rebinding."""
    with serving_fake() as server:
        bound = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        shown = seen_by_a_browser(f"http://evil.example:{server.port}/v1/limits", tmp_path, bound)
        assert "host_not_allowed" in shown
        assert "max_documents" not in shown
        own = seen_by_a_browser(f"http://127.0.0.1:{server.port}/v1/limits", tmp_path)
        assert "max_documents" in own
