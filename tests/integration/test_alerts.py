"""Alerts and the example of a configuration, by Prometheus's own tool."""

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"


def promtool(*arguments: str) -> str:
    """Run it; fails with what it says."""
    done = subprocess.run(
        ["promtool", *arguments], cwd=FOLDER, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> dict[str, dict[str, object]]:
    """All alerts, by name."""
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_rules_are_valid() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", "alerts.yml")


def test_the_example_of_a_configuration_is_valid() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_must_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")


@pytest.mark.parametrize("fires", [True, False])
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(fires: bool) -> None:
    tests = yaml.safe_load((FOLDER / "alerts.test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if bool(case["exp_alerts"]) == fires} == set(
        alerts()
    )


def test_the_page_says_of_each_alert_what_to_do() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `Tamis")]
    told = {row[1].strip(" `"): row[2].strip() for row in rows}
    severities = {name: rule["labels"]["severity"] for name, rule in alerts().items()}  # type: ignore[index]  # YAML
    assert told == severities
    assert all(row[3].strip() and row[4].strip() for row in rows)
