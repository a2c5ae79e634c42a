"""Probes, metrics, request ids and documentation."""

import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.integration.serving import Served, sample, serving_fake


def test_livez_and_readyz_of_a_server_that_is_well(served: Served) -> None:
    assert served.client.get("/livez").json() == {"status": "alive"}
    ready = served.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert ready.json()["model"] == "xlm-roberta"
    assert ready.json()["runtime"] == "ctranslate2"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json"])
def test_what_can_be_got_has_a_head(served: Served, path: str) -> None:
    assert served.client.head(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/docs/nowhere.js", 404),
        ("GET", "/docs/..%2Fapp.py", 404),
        ("GET", "/rerank", 405),
        ("GET", "/v1/rerank", 405),
        ("DELETE", "/livez", 405),
        ("POST", "/metrics", 405),
    ],
)
def test_a_wrong_path_or_method_is_answered_in_json(
    served: Served, method: str, path: str, status: int
) -> None:
    response = served.client.request(method, path)
    assert response.status_code == status
    assert response.json()["code"] == "http_error"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert ("allow" in response.headers) is (status == 405)


def test_metrics_count_requests_pairs_tokens_and_batches() -> None:
    with serving_fake() as server:
        server.rerank("q", ["a b", "c"])
        server.rerank("q", ["word " * 600])
        server.rerank("q", ["a"], model="m")
        server.client.post("/rerank", json={"query": "q", "texts": ["a"]})
        server.rerank("", ["a"])
        server.rerank("q", [3])
        server.client.get("/livez")
        response = server.client.get("/metrics")
        text = response.text
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    requests = [
        sample(text, "tamis_requests_total", dialect=dialect, status=status)
        for dialect, status in [
            *(("native", "200"), ("jina", "200"), ("tei", "200")),
            *(("native", "400"), ("native", "422"), ("native", "500")),
        ]
    ]
    assert requests == [2, 1, 1, 1, 1, 0]
    assert sample(text, "tamis_request_duration_seconds_count", dialect="native") == 4
    assert sample(text, "tamis_pairs_total") == 5
    assert sample(text, "tamis_tokens_total") == 7 + 6 + 512 + 6 + 6
    assert sample(text, "tamis_truncated_pairs_total") == 1
    assert sample(text, "tamis_batch_pairs_sum") == 5
    assert sample(text, "tamis_batch_tokens_sum") == 7 + 6 + 512 + 6 + 6
    assert sample(text, "tamis_batch_requests_sum") == 4
    assert sample(text, "tamis_batch_duration_seconds_count") == 4
    assert sample(text, "tamis_queue_tokens") == 0
    assert 'tamis_model_info{device="cpu",dtype="float32",name="fake",runtime="fake"} 1.0' in text


def test_paths_and_bodies_of_callers_make_no_new_series(served: Served) -> None:
    def names() -> set[str]:
        text = served.client.get("/metrics").text
        return {line.rpartition(" ")[0] for line in text.splitlines()}

    served.rerank("q", [3])
    before = names()
    for number in range(20):
        served.client.get(f"/random/{number}")
        served.rerank("q", [3], **{f"field-{number}": number})
    assert names() == before


@pytest.mark.parametrize("given", ["abc-123", "A.b_C", "x" * 64])
def test_a_request_id_of_the_callers_is_taken_over(served: Served, given: str) -> None:
    response = served.client.post("/rerank", json={}, headers={"x-request-id": given})
    assert response.headers["x-request-id"] == given
    assert response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", 'a"b', "a\tb", "ä", "<script>", "a/b"])
def test_any_other_request_id_is_replaced(served: Served, given: str) -> None:
    response = served.client.get("/livez", headers={b"x-request-id": given.encode()})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


def test_request_ids_are_made_anew_for_each_request(served: Served) -> None:
    ids = {served.client.get("/livez").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_the_request_id_is_the_jina_answers_id(served: Served) -> None:
    response = served.rerank("q", ["a"], model="m")
    assert response.json()["id"] == response.headers["x-request-id"]


def test_the_openapi_document_is_valid_and_names_each_path(served: Served) -> None:
    document = served.client.get("/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    assert set(document["paths"]) == {
        *("/rerank", "/v1/rerank", "/v1/limits", "/v1/stats", "/v1/feedback"),
        *("/livez", "/readyz", "/metrics"),
    }


def test_the_openapi_documents_own_example_is_answered(served: Served) -> None:
    document = served.client.get("/openapi.json").json()
    content = document["paths"]["/rerank"]["post"]["requestBody"]["content"]["application/json"]
    response = served.client.post("/rerank", json=content["example"])
    assert response.status_code == 200
    assert len(response.json()["results"]) == content["example"]["top_n"]


def test_the_documentation_needs_no_other_server(served: Served) -> None:
    page = served.client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    links = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page.text)
    assert len(links) == 3
    for link in links:
        asset = served.client.get(str(page.url.join(link)))
        assert asset.status_code == 200
        assert asset.headers["content-type"].partition(";")[0] in ("text/javascript", "text/css")
        assert asset.content


@pytest.mark.parametrize("path", ["/", "/docs/"])
def test_the_ways_to_the_documentation_lead_there(served: Served, path: str) -> None:
    response = served.client.get(path, follow_redirects=True)
    assert (response.status_code, response.url.path) == (200, "/docs")


def test_a_forged_host_gets_no_answer(served: Served) -> None:
    forged = {"host": "x/livez?y="}
    for path in ("/docs/start.js", "/nowhere", "/rerank"):
        assert served.client.get(path, headers=forged).json()["code"] == "host_not_allowed"


def test_the_openapi_document_has_every_status_an_error_can_have() -> None:
    from tamis.server.endpoints.documentation import openapi_document
    from tamis.server.errors import ERROR_STATUSES

    paths = openapi_document()["paths"]
    possible = {str(status) for status in ERROR_STATUSES.values()} | {"424", "431"}
    assert possible - {"404"} <= set(paths["/rerank"]["post"]["responses"])
    assert "404" in paths["/v1/feedback"]["post"]["responses"]
