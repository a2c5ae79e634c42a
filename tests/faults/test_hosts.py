"""By which name, from which page and on which port a server may be called."""

import socket
from collections.abc import Iterator

import httpx2
import pytest

from tests.faults.raw import exchange, head
from tests.integration.serving import Served, serving_fake, until


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    """A server with nothing set."""
    with serving_fake() as server:
        yield server


def status_of(server: Served, host: str, path: str = "/v1/limits", **headers: str) -> int:
    return server.client.get(path, headers={"host": host} | headers).status_code


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "LOCALHOST:9",
            "127.0.0.1",
            "127.0.0.1:1234",
            "[::1]",
            "[::1]:80",
            "10.2.3.4",
        ),
        *("tamis", "tamis:8000", "a_b-c", "localhost."),
        *("host.docker.internal:8000", "gateway.docker.internal", "host.containers.internal"),
        *("tamis.search.svc", "tamis.search.svc.cluster.local:8000", "Pod-0.Tamis.Search.SVC."),
        *("rerank.local", "foo.localhost:1", "METADATA.google.internal.:80", "nas.home.arpa"),
        *("a.test", "cluster.local", "_dns-sd._udp.local"),
    ],
)
def test_addresses_and_names_that_no_stranger_can_own_are_allowed(plain: Served, host: str) -> None:
    assert status_of(plain, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8000"),
        *(
            "127.0.0.1@evil.example",
            "x/livez?y=",
            "localhost/",
            "localhost:",
            "localhost:x",
            "[::1",
        ),
        *("svc.evil.example", "internal.example", "local.com", "mylocal.host"),
        *("x.svc.example", "a.lan", "a.home", "a.corp", "xlocalhost.org", "a.arpa", "a.internal.x"),
        *("a.local:port", "a.local..", ".local", "a.local@evil.example", "evil.example#.local"),
        *("a b", "localhost,evil.example", "[evil.example]", ".", "-", "1.2.3.4.5", "[1::2::3]"),
    ],
)
def test_row_26_a_hostile_host_is_400(plain: Served, host: str) -> None:
    answer = exchange(plain, head("Connection: close", start="GET /docs HTTP/1.1", host=host))
    assert (answer.status, answer.json()["code"]) == (400, "host_not_allowed")
    assert "evil" not in answer.json()["error"]


def test_row_27_a_name_that_was_bound_to_this_address_gets_nothing(plain: Served) -> None:
    answer = plain.client.post(
        "/rerank", json={"query": "q", "documents": ["a"]}, headers={"host": "evil.example"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "host_not_allowed")
    assert plain.metric("tamis_refusals_total", reason="host_not_allowed") >= 1


def test_probes_may_be_called_by_any_name(plain: Served) -> None:
    assert status_of(plain, "pod.example.org", "/livez") == 200
    assert status_of(plain, "pod.example.org", "/readyz") == 200


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("rank.example.org, other.example.org", "rank.example.org", 200),
        ("rank.example.org, other.example.org", "Other.Example.ORG:443", 200),
        ("rank.example.org", "example.org", 400),
        ("rank.example.org", "a.rank.example.org", 400),
        ("*.example.org", "a.b.example.org", 200),
        ("*.example.org", "example.org", 400),
        ("*.example.org", "evilexample.org", 400),
        ("*", "evil.example", 200),
        ("*", "x/livez?y=", 400),
        ("", "own.example.org", 400),
    ],
)
def test_names_can_be_allowed(allowed: str, host: str, status: int) -> None:
    with serving_fake(server={"allowed_hosts": allowed}) as server:
        assert status_of(server, host) == status


def test_row_27_a_page_of_another_origin_may_not_call(plain: Served) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "x"):
        answer = plain.client.post(
            "/rerank", json={"query": "q", "documents": ["a"]}, headers={"origin": origin}
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_row_27_a_preflight_of_another_origin_is_refused(plain: Served) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = plain.client.options("/rerank", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_row_27_a_form_that_a_page_could_send_is_415(plain: Served) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; b=x"):
        answer = plain.client.post("/rerank", content=b"{}", headers={"content-type": kind})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_page_of_the_servers_own_may_call(plain: Served) -> None:
    origin = {"origin": f"http://127.0.0.1:{plain.port}"}
    body = {"query": "q", "documents": ["a"]}
    assert plain.client.post("/rerank", json=body, headers=origin).status_code == 200


def test_an_origin_that_is_allowed_may_call_without_credentials() -> None:
    allowed = {"cors_origins": "https://app.example.org,https://b.example.org"}
    with serving_fake(server=allowed) as server:
        for origin, status in (("https://app.example.org", 200), ("https://evil.example", 403)):
            asked = {"origin": origin, "access-control-request-method": "POST"}
            preflight = server.client.options("/rerank", headers=asked)
            answer = server.client.post(
                "/rerank", json={"query": "q", "documents": ["a"]}, headers={"origin": origin}
            )
            assert (preflight.status_code, answer.status_code) == (status, status)
            named = answer.headers.get("access-control-allow-origin")
            assert named == (origin if status == 200 else None)
            assert "access-control-allow-credentials" not in answer.headers


def test_metrics_on_a_port_of_their_own_are_nowhere_else() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as extra:
        extra.bind(("127.0.0.1", 0))
        extra.listen()
        port = extra.getsockname()[1]
        with serving_fake(server={"metrics_port": port}, sockets=[extra]) as server:
            url = f"http://127.0.0.1:{port}"
            assert "tamis_requests" in httpx2.get(f"{url}/metrics").text
            assert httpx2.get(f"{url}/livez").status_code == 200
            assert httpx2.post(f"{url}/rerank", json={}).status_code == 404
            assert httpx2.get(f"{url}/docs").json()["code"] == "http_error"
            assert server.client.get("/metrics").status_code == 404
            assert server.client.get("/livez").status_code == 200
            assert server.rerank("q", ["a"]).status_code == 200


def test_row_42_random_paths_models_and_hosts_make_no_new_series(plain: Served) -> None:
    def names() -> set[str]:
        text = plain.client.get("/metrics").text
        return {line.rpartition(" ")[0] for line in text.splitlines()}

    def attack(number: int) -> None:
        plain.client.get(f"/random/{number}")
        plain.client.get("/livez", headers={"host": f"host-{number}.example"})
        plain.client.get("/docs", headers={"host": f"host-{number}.example"})
        plain.client.get("/docs", headers={"origin": f"https://host-{number}.example"})
        plain.client.get("/docs", headers={"x-request-id": f"id-{number}"})
        plain.client.request(f"METHOD{number}", "/rerank")
        plain.rerank("q", ["a"], model=f"model-{number}")
        plain.rerank("q", [3], **{f"field-{number}": number})
        exchange(plain, head(f"Content-Length: x{number}"))

    attack(-1)
    until(lambda: plain.metric("tamis_refusals_total", reason="malformed_request") >= 1)
    before = names()
    for number in range(100):
        attack(number)
    assert names() == before


def test_row_47_a_document_that_is_an_address_stays_text(plain: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/canary"
        documents = [url, {"text": url, "url": url, "image": url}, f"file://{url}"]
        for fields in ({}, {"model": url}):
            assert plain.rerank(url, documents, **fields).status_code == 200
        body = {"query": url, "texts": [url], "url": url, "callback": url}
        headers = {"forwarded": f"host={url}", "x-forwarded-host": url, "referer": url}
        assert plain.client.post("/rerank", json=body, headers=headers).status_code == 200
        with pytest.raises(TimeoutError):
            listener.accept()
