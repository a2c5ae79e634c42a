"""Every query of the dashboard, and every alert, against a Prometheus that scrapes a server."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.integration.prometheus import Prometheus, names_in, names_of, scraping
from tests.integration.serving import Process, until

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "tamis.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
ALERTS = [
    pytest.param(rule["expr"], id=rule["alert"])
    for group in RULES["groups"]
    for rule in group["rules"]
]
WITHOUT_DATA = re.compile(
    "tamis_cuda_"  # there is no GPU
    "|tamis_cache_errors_total"  # no store fails
    "|tamis_relevance_(drift|score_psi|score_ks|baseline)"  # no baseline is recorded
)
VARIABLES = {"$__rate_interval": "30s", "$instance": ".*", "$model": ".*"}


@dataclass(frozen=True)
class Watched:
    """A server that has had some traffic, and who watches it."""

    prometheus: Prometheus
    metrics: str


@pytest.fixture(scope="module")
def watched(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server with a worker, after requests of every kind, scraped before and after them."""
    folder = tmp_path_factory.mktemp("prometheus")
    arguments = (f"--model.name={tiny_model}", "--model.threads=1", "--server.port=0")
    with Process(*arguments, "--workers=1") as process:
        url = process.url()
        with scraping(url, folder) as prometheus, httpx2.Client(base_url=url) as client:
            until(lambda: prometheus.value("count_over_time(up[1m])") >= 2)
            answered = _send_traffic(client)
            until(lambda: prometheus.value("sum(tamis_requests_total)") >= answered)
            until(lambda: prometheus.value("sum(tamis_relevance_feedback_rank_count)") >= 1)
            held = prometheus.value("count_over_time(up[1m])")
            until(lambda: prometheus.value("count_over_time(up[1m])") >= held + 2)
            yield Watched(prometheus, client.get("/metrics").text)


def _send_traffic(client: httpx2.Client) -> int:
    """Rerank in each dialect, the same and other texts, well and badly; how many requests."""
    documents = ["a bear", "the giant panda", "a cat and a dog", "hi", "a panda eats bamboo"]
    bodies: list[dict[str, Any]] = [
        {"query": "what is a panda", "documents": documents},
        {"query": "what is a panda", "documents": documents},
        {"query": "what is a panda", "documents": [f"{text} again" for text in documents]},
        {"model": "m", "query": "who eats bamboo", "documents": documents},
        {"query": "who barks", "texts": documents},
    ]
    for body in bodies:
        answer = client.post("/rerank", json=body)
        assert answer.status_code == 200, answer.text
    answer = client.post("/rerank", json=bodies[0])
    feedback = {"request_id": answer.headers["x-request-id"], "index": 1, "event": "used"}
    assert client.post("/v1/feedback", json=feedback).is_success
    assert client.post("/rerank", json={"query": "no documents"}).status_code == 400
    refused = client.post("/rerank", json=bodies[0], headers={"host": "elsewhere.example"})
    assert refused.status_code == 400
    return len(bodies) + 2


def filled_in(expression: str) -> str:
    """A query as Grafana would send it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize("expression", QUERIES)
def test_a_query_of_the_dashboard_has_data(expression: str, watched: Watched) -> None:
    assert names_in(expression) <= names_of(watched.metrics)
    found = watched.prometheus.query(filled_in(expression))
    if not WITHOUT_DATA.search(expression):
        assert found


@pytest.mark.parametrize("expression", ALERTS)
def test_an_alert_is_understood_and_asks_for_what_there_is(
    expression: str, watched: Watched
) -> None:
    assert names_in(expression) <= names_of(watched.metrics)
    watched.prometheus.query(expression)


@pytest.mark.parametrize("name", ["up", "tamis_ready", "tamis_device_up", "tamis_cache_up"])
def test_a_server_that_is_well_says_so(name: str, watched: Watched) -> None:
    assert {found["value"][1] for found in watched.prometheus.query(name)} == {"1"}


def test_alerts_for_now_are_quiet_on_a_server_that_is_well(watched: Watched) -> None:
    firing = [
        rule["alert"]
        for group in RULES["groups"]
        for rule in group["rules"]
        if watched.prometheus.query(rule["expr"])
    ]
    assert firing == []


def test_panels_and_rows_have_a_place_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_have_numbers_titles_descriptions_and_a_source_that_can_be_chosen() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert all(target["datasource"] == source for target in [panel, *panel["targets"]])


def test_variables_ask_for_what_there_is(watched: Watched) -> None:
    asked = [one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one]
    assert len(asked) == 2
    for definition in asked:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition)
        assert found
        series = watched.prometheus.query(found[1])
        assert series
        assert all(one["metric"][found[2]] for one in series)
