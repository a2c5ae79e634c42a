"""The page about monitoring names every metric there is, as it is."""

from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase

from tamis.assembly.watching import make_watch
from tamis.engine.facts import ModelFacts
from tamis.observability.metrics import Metrics
from tamis.settings import Settings
from tamis.timing import Phase

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")


def rows_below(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading."""
    table = PAGE.partition(f"\n{heading}\n")[2].partition("\n|")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return cells[2:]


def documented(heading: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric on the page."""
    return {
        row[0].strip("`"): (row[1], {label.strip(" `") for label in row[2].split(",") if label})
        for row in rows_below(heading)
    }


def registered(registry: CollectorRegistry) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric of a server."""
    found: dict[str, tuple[str, set[str]]] = {}
    for collector in list(registry._collector_to_names):
        for family in collector.collect():
            labels = _labels(collector, family)
            name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            kind = "gauge" if family.type == "info" else family.type
            found[name] = (kind, labels)
    return found


def _labels(collector: object, family: Metric) -> set[str]:
    owner = collector if isinstance(collector, MetricWrapperBase) else family
    sampled = {
        label for sample in family.samples if family.type == "info" for label in sample.labels
    }
    return set(getattr(owner, "_labelnames", ())) | sampled


def test_the_table_has_every_metric_with_its_type_and_labels() -> None:
    metrics = Metrics()
    metrics.state.describe_model(ModelFacts("m", "r", "d", "t", 1, 1))
    assert len(documented("## Metrics")) > 40
    assert documented("## Metrics") == registered(metrics.registry)


def test_so_has_the_table_of_relevance(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    options = Settings.model_validate({"relevance": {"log_file": tmp_path / "log.jsonl"}})
    make_watch(options, registry).close()
    assert documented("### Relevance") == registered(registry)


@pytest.mark.parametrize("heading", ["## Metrics", "### Relevance"])
def test_every_row_says_what_it_means(heading: str) -> None:
    assert all(len(row) == 5 and row[4] for row in rows_below(heading))


@pytest.mark.parametrize("heading", ["## Metrics", "### Relevance"])
def test_the_unit_is_the_one_in_the_name(heading: str) -> None:
    for name, _, _, unit, _ in rows_below(heading):
        for known in (
            "seconds",
            "bytes",
            "tokens",
            "pairs",
            "requests",
            "documents",
            "logits",
            "ranks",
        ):
            if name.strip("`").removesuffix("_total").endswith(f"_{known}"):
                assert unit == known, name


def test_the_phases_are_the_ones_there_are() -> None:
    assert [row[0].strip("`") for row in rows_below("### Phases")] == list(get_args(Phase))
