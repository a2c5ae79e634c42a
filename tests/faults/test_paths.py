"""Every spelling of a path is one path, and what leads nowhere says what would."""

import socket
from collections.abc import Iterator

import pytest

from tamis.server.middleware.paths import nearest_path
from tests.faults.raw import ASKED, exchange, head
from tests.integration.serving import Served, serving_fake


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    """A server with nothing set."""
    with serving_fake() as server:
        yield server


def posted(target: str, host: str = "localhost") -> bytes:
    lines = (f"Content-Length: {len(ASKED)}", "Connection: close")
    return head(*lines, start=f"POST {target} HTTP/1.1", host=host) + ASKED


@pytest.mark.parametrize(
    "target",
    [
        *("/rerank", "/rerank/", "//rerank", "/rerank//", "/v1/rerank/", "//v1//rerank//"),
        *("http://localhost/rerank", "HTTP://127.0.0.1:8000//v1/rerank/", "https://tamis/rerank"),
        *("/rerank/?x=1", "http://localhost/rerank?x=/y"),
    ],
)
def test_a_careless_path_is_answered_as_the_path_itself(plain: Served, target: str) -> None:
    answer = exchange(plain, posted(target))
    assert answer.status == 200
    assert len(answer.json()["results"]) == 2


def test_row_26_the_authority_of_an_absolute_target_is_the_host(plain: Served) -> None:
    foreign = exchange(plain, posted("http://evil.example/rerank"))
    assert (foreign.status, foreign.json()["code"]) == (400, "host_not_allowed")
    own = exchange(plain, posted("http://localhost/rerank", host="evil.example"))
    assert own.status == 200
    for target in ("http:///rerank", "http://user@localhost/rerank", "http://a%2Fb/rerank"):
        assert exchange(plain, posted(target)).status == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((path, "ready") for path in ("/health", "/healthz", "/healthcheck", "/ping", "/ready")),
        *((path, "ready") for path in ("/health/ready", "/health/", "/ping//", "/readyz/")),
        *((path, "alive") for path in ("/livez/", "/live", "/health/live")),
    ],
)
def test_probes_have_the_names_that_other_servers_give_them(
    plain: Served, path: str, status: str
) -> None:
    anywhere = {"host": "pod.example.org"}
    assert plain.client.get(path, headers=anywhere).json()["status"] == status
    assert plain.client.head(path, headers=anywhere).status_code == 200


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        *(("/reranck", "/rerank"), ("/Rerank", "/rerank"), ("/reranking", "/rerank")),
        *(("/v2/rerank", "/v1/rerank"), ("/api/rerank", "/rerank"), ("/v1/limit", "/v1/limits")),
        *(("/helth", "/health"), ("/metric", "/metrics"), ("/v1/feedbacks", "/v1/feedback")),
        *(("/openapi", "/openapi.json"), ("/doc", "/docs")),
    ],
)
def test_a_path_that_leads_nowhere_names_the_nearest(
    plain: Served, path: str, nearest: str
) -> None:
    answer = plain.client.post(path, json={})
    assert answer.status_code == 404
    assert f"did you mean {nearest}" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/", "/wp-login.php", "/" + "rerank" * 5_000, "/%1b[31m%0d%0a"])
def test_no_path_is_repeated(path: str) -> None:
    known = ("/rerank", "/docs")
    assert nearest_path(path, known) in (None, "/rerank")


def test_a_path_near_none_is_told_where_all_are(plain: Served) -> None:
    answer = plain.client.get("/%1b%5b31m-wp-login-canary")
    assert answer.status_code == 404
    assert "canary" not in answer.text
    assert "/docs" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/rerank", "POST"), ("PUT", "/rerank/", "POST"), ("POST", "/health", "GET")],
)
def test_a_wrong_method_says_which_is_right(
    plain: Served, method: str, path: str, allowed: str
) -> None:
    answer = plain.client.request(method, path)
    assert answer.status_code == 405
    assert allowed in answer.headers["allow"]
    assert allowed in answer.json()["error"]


def test_every_address_means_those_of_both_versions() -> None:
    from tamis.cli.serve import _listen

    for host in ("::", "[::]", "0:0:0:0:0:0:0:0", "::0"):
        with _listen(host, 0) as listener:
            assert not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            port = listener.getsockname()[1]
            for address in ("127.0.0.1", "::1"):
                socket.create_connection((address, port), timeout=5).close()


def test_an_address_of_one_version_stays_one() -> None:
    from tamis.cli.serve import _listen

    with _listen("::1", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_chunked_body_is_kept_too(plain: Served) -> None:
    body = f"{len(ASKED):x}\r\n".encode() + ASKED + b"\r\n0\r\n\r\n"
    lines = ("Transfer-Encoding: chunked", "Connection: close")
    asked = head(*lines, start="POST //rerank/ HTTP/1.1") + body
    assert exchange(plain, asked).status == 200
