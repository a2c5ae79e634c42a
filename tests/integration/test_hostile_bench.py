"""The benchmark of attacks on a server, very short."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = ("--seconds-per-attack", "3")


@pytest.fixture(scope="module")
def run() -> subprocess.CompletedProcess[str]:
    """A run of two attacks that cost little; it saves nothing."""
    before = saved()
    command = (sys.executable, "-m", "benchmarks.hostile", *SHORT)
    chosen = ("--only", "framings", "--only", "unread log")
    done = subprocess.run(
        [*command, *chosen], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert saved() == before
    return done


def saved() -> dict[str, bytes]:
    """Saved results, by name."""
    return {path.name: path.read_bytes() for path in (ROOT / "benchmarks/results").iterdir()}


def test_a_short_run_measures_honest_callers_beside_each_attack(
    run: subprocess.CompletedProcess[str],
) -> None:
    result = json.loads(run.stdout)
    assert list(result["attacks"]) == ["unread log", "framings"]
    for found in (result["quiet"], *result["attacks"].values(), result["quiet_afterwards"]):
        assert found["honest_requests"] == sum(found["honest_outcomes"].values()) > 0
        assert 0 < found["honest_p50_seconds"] <= found["honest_p99_seconds"]
        assert found["livez_max_seconds"] > 0
        assert found["memory_max_bytes"] > 50 * 2**20
        assert found["alive"]
    assert result["quiet"]["attackers_outcomes"] == {}
    assert result["attacks"]["framings"]["attackers_outcomes"]["400"] > 5
    assert result["attacks"]["unread log"]["attackers_outcomes"]["404"] > 5
    assert result["attacks"]["unread log"]["log_bytes_per_minute"] == 0
    assert result["quiet"]["log_bytes_per_minute"] > 0


def test_the_exit_code_says_whether_all_demands_were_met(
    run: subprocess.CompletedProcess[str],
) -> None:
    result = json.loads(run.stdout)
    held = [all(found["holds"].values()) for found in result["attacks"].values()]
    assert result["holds"] == all(held)
    assert run.returncode == (0 if result["holds"] else 1)
