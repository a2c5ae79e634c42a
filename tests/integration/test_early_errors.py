"""An error that comes before a body tells the dialect has what each client of its path reads."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.serving import Served, serving_fake

NATIVE = {"error", "code", "request_id"}
SHARED = NATIVE | {"id", "message", "detail", "error_type"}
"""Of the tutorial's clients, of Jina's, vLLM's and Cohere's, and of TEI's."""
KEY = "tamis_right-key"


@pytest.fixture(scope="module")
def plain() -> Any:
    """A server with nothing set but small bodies."""
    with serving_fake(limits={"max_body_bytes": 2_000}) as server:
        yield server


def require_words_of_all(answer: httpx2.Response) -> None:
    """Each client finds the sentence where it looks, and the id of the log."""
    body = answer.json()
    assert set(body) == SHARED
    assert body["error"] == body["message"] == body["detail"]
    assert body["id"] == body["request_id"] == answer.headers["x-request-id"]
    assert body["error_type"] == "Validation"


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/rerank/"])
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b"{"}, 400),
        ({"content": b"[]"}, 400),
        ({"content": b"x" * 3_000}, 413),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"{}", "headers": {"content-encoding": "br"}}, 415),
        ({"content": b"{}", "headers": {"host": "evil.example"}}, 400),
        ({"content": b"{}", "headers": {"origin": "https://evil.example"}}, 403),
    ],
    ids=str,
)
def test_what_is_refused_unread_is_told_in_the_words_of_all_who_share_the_path(
    plain: Served, path: str, sent: dict[str, Any], status: int
) -> None:
    answer = plain.client.post(path, **sent)
    assert answer.status_code == status
    require_words_of_all(answer)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/rerank", 405), ("DELETE", "/v1/rerank", 405)),
        *(("POST", path, 404) for path in ("/v2/rerank", "/api/v1/rerank", "/rerank/documents")),
    ],
)
def test_so_is_a_wrong_method_and_a_path_that_ends_or_starts_as_theirs(
    plain: Served, method: str, path: str, status: int
) -> None:
    answer = plain.client.request(method, path)
    assert answer.status_code == status
    require_words_of_all(answer)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/nowhere", 404), ("POST", "/livez", 405), ("POST", "/v1/limits", 405)),
        *(("GET", "/v1/feedback", 405), ("POST", "/v1/nowhere", 404)),
    ],
)
def test_elsewhere_an_error_is_tamiss_own(
    plain: Served, method: str, path: str, status: int
) -> None:
    answer = plain.client.request(method, path)
    assert (answer.status_code, set(answer.json())) == (status, NATIVE)


def test_a_missing_key_is_told_in_the_words_of_the_path(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(f"{sha256(KEY.encode()).hexdigest()} web\n")
    with serving_fake(server={"keys_file": keys}) as server:
        for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
            answer = server.client.post(path, json={})
            assert answer.status_code == 401
            require_words_of_all(answer)
        assert set(server.client.get("/v1/stats").json()) == NATIVE


def test_a_body_for_which_there_is_no_room_is_overloaded_for_teis_clients() -> None:
    with serving_fake(limits={"max_total_body_bytes": 10}) as server:
        answer = server.client.post("/rerank", content=b" " * 11)
    assert (answer.status_code, set(answer.json())) == (429, SHARED)
    assert answer.json()["error_type"] == "Overloaded"
    assert int(answer.headers["retry-after"]) >= 1


def test_once_the_body_has_told_errors_are_in_its_dialect_alone(plain: Served) -> None:
    for body, keys in [
        ({"query": "", "documents": ["a"]}, NATIVE),
        ({"query": "", "documents": ["a"], "model": "m"}, {"id", "message", "detail", "error"}),
        ({"query": "", "texts": ["a"]}, {"error", "error_type"}),
    ]:
        answer = plain.client.post("/rerank", json=body)
        assert (answer.status_code, set(answer.json())) == (400, keys)
