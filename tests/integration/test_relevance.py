"""The watch on the ranking, over HTTP: statistics, feedback, metrics, the log of requests."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tamis.relevance.baseline import baseline_of, write_baseline
from tamis.server.keys import make_key
from tests.integration.serving import Served, sample, serving_fake
from tests.rankings import snapshot

DOCUMENTS = ["one", "two words", "three words here", "four", "five", "six", "seven"]


def stats(server: Served, key: str | None = None) -> dict[str, Any]:
    headers = {} if key is None else {"x-api-key": key}
    answer = server.client.get("/v1/stats", headers=headers)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def give(server: Served, **body: object) -> httpx2.Response:
    return server.client.post("/v1/feedback", json=body)


def keys_in(folder: Path, *names: str) -> tuple[Path, list[str]]:
    """A file of keys, and the keys."""
    made = [make_key(name) for name in names]
    file = folder / "keys.txt"
    file.write_text("".join(f"{line}\n" for _, line in made))
    return file, [key for key, _ in made]


def test_statistics_tell_of_requests_batches_and_the_ranking() -> None:
    with serving_fake() as server:
        for _ in range(3):
            server.rerank("q", DOCUMENTS, cache=False)
        server.rerank("q", [], cache=False)
        server.client.post("/rerank", json={"query": "q", "texts": ["a"]})
        found = stats(server)
    assert found["state"] == "ready"
    assert found["uptime_seconds"] > 0
    assert found["model"]["name"] == "fake"
    requests = {(one["dialect"], one["status"]): one["requests"] for one in found["requests"]}
    assert requests == {("native", "200"): 3, ("native", "400"): 1, ("tei", "200"): 1}
    native = next(one for one in found["latency"] if one["dialect"] == "native")
    assert native["requests"] == 4
    assert 0 < native["p50_seconds"] <= native["p99_seconds"]
    assert found["batches"]["batches"] >= 4
    assert 0 < found["batches"]["fill"] <= 1
    assert found["queue"]["tokens"] == 0
    relevance = found["relevance"]
    assert relevance["together"]["counts"]["requests"] == 4
    assert relevance["together"]["counts"]["compared_requests"] == 3
    assert {one["dialect"] for one in relevance["series"]} == {"native", "tei"}
    assert sum(relevance["together"]["histograms"]["score"]["counts"]) == 22
    assert relevance["windows"][0]["n_requests"] == 4
    assert relevance["drift"][0]["state"] == "none"


def test_statistics_are_there_before_any_request() -> None:
    with serving_fake() as server:
        found = stats(server)
    assert found["requests"] == []
    assert found["batches"]["fill"] is None
    assert found["relevance"]["windows"] == []


def test_feedback_names_the_answer_by_its_request_id() -> None:
    with serving_fake() as server:
        answer = server.rerank("q", DOCUMENTS)
        order = [result["index"] for result in answer.json()["results"]]
        request_id = answer.headers["x-request-id"]
        clicked = give(server, request_id=request_id, index=order[1], event="clicked")
        used = give(server, request_id=request_id, index=order[:3], event="used")
        again = give(server, request_id=request_id, index=order[:4], event="used")
        (series,) = stats(server)["relevance"]["series"]
        text = server.client.get("/metrics").text
    assert (clicked.status_code, clicked.json()["counted"]) == (200, 1)
    assert (used.json()["counted"], used.json()["repeated"]) == (3, 0)
    assert (again.json()["counted"], again.json()["repeated"]) == (1, 3)
    feedback = {one["event"]: one for one in series["feedback"]}
    assert feedback["clicked"]["mean_reciprocal_rank"] == 0.5
    assert feedback["used"]["mean_reciprocal_rank"] == 1
    assert feedback["used"]["first_share"] == 0.25
    labels = {"model": "fake", "dialect": "native", "caller": "", "event": "clicked"}
    assert sample(text, "tamis_relevance_feedback_rank_sum", **labels) == 2
    assert sample(text, "tamis_relevance_feedback_given_rank_sum", **labels) == order[1] + 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"request_id": "nobody", "index": 0, "event": "used"}, 404, "unknown_request"),
        ({"request_id": "known", "index": 2, "event": "used"}, 422, "invalid_field"),
        ({"request_id": "known", "index": [0, 9], "event": "used"}, 422, "invalid_field"),
        ({"request_id": "known", "index": -1, "event": "used"}, 422, "invalid_field"),
        ({"request_id": "known", "index": 0, "event": "liked"}, 422, "invalid_field"),
        ({"request_id": "known", "index": "x", "event": "used"}, 422, "invalid_field"),
        ({"request_id": "known", "event": "used"}, 400, "missing_field"),
        ({"request_id": "known", "index": [], "event": "used"}, 400, "missing_field"),
        ({"index": 0, "event": "used"}, 400, "missing_field"),
        ([], 400, "malformed_body"),
    ],
)
def test_feedback_that_cannot_be_counted_is_refused(body: object, status: int, code: str) -> None:
    with serving_fake() as server:
        server.client.post(
            "/rerank",
            json={"query": "q", "documents": ["a", "b"]},
            headers={"x-request-id": "known"},
        )
        answer = server.client.post("/v1/feedback", json=body)
        (series,) = stats(server)["relevance"]["series"]
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "liked" not in answer.text
    assert all(one["documents"] == 0 for one in series["feedback"])


def test_an_answer_that_was_an_error_takes_no_feedback() -> None:
    with serving_fake() as server:
        refused = server.rerank("q", [3])
        answer = give(server, request_id=refused.headers["x-request-id"], index=0, event="used")
    assert answer.status_code == 404


def test_callers_see_their_own_series_and_give_feedback_on_their_own_answers(
    tmp_path: Path,
) -> None:
    file, (web, app) = keys_in(tmp_path, "web", "app")
    with serving_fake(server={"keys_file": file}) as server:
        assert server.client.get("/v1/stats").status_code == 401
        assert give(server, request_id="r", index=0, event="used").status_code == 401
        for key in (web, web, app):
            server.client.post(
                "/rerank",
                json={"query": "q", "documents": ["a", "b"]},
                headers={"x-api-key": key, "x-request-id": f"id-{key[-4:]}"},
            )
        body = {"request_id": f"id-{web[-4:]}", "index": 0, "event": "used"}
        others = server.client.post("/v1/feedback", json=body, headers={"x-api-key": app})
        own = server.client.post("/v1/feedback", json=body, headers={"x-api-key": web})
        seen = stats(server, app)["relevance"]
        metrics = server.client.get("/metrics", headers={"x-api-key": app}).text
    assert (others.status_code, own.status_code) == (404, 200)
    assert [series["caller"] for series in seen["series"]] == ["app"]
    assert seen["together"]["counts"]["requests"] == 3
    assert "web" not in json.dumps(seen)
    assert 'caller="web"' not in metrics
    labels = {"model": "fake", "dialect": "native", "caller": ""}
    assert sample(metrics, "tamis_relevance_requests_total", **labels) == 3


def test_a_sample_of_requests_is_logged_where_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    options = {"log_file": file, "log_share": 1.0, "log_texts": True}
    with serving_fake(relevance=options) as server:
        answer = server.rerank("why", [{"text": "a"}, "b"])
    (line,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert (line["query"], line["documents"]) == ("why", ["a", "b"])
    assert line["request_id"] == answer.headers["x-request-id"]
    scores = {result["index"]: result["score"] for result in answer.json()["results"]}
    assert line["logits"] == [scores[0], scores[1]]


def test_a_baseline_that_nothing_is_like_is_an_alert(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    write_baseline(file, baseline_of(snapshot(200, seed=0, shift=9.0)))
    with serving_fake(relevance={"baseline": file}) as server:
        for number in range(110):
            server.rerank(f"q {number}", ["a", "b"])
        drift = stats(server)["relevance"]["drift"][0]
        labels = {"model": "fake", "signal": "top_ks"}
        alert = server.metric("tamis_relevance_drift_alert", **labels)
    assert drift["state"] == "alert"
    assert alert == 1
