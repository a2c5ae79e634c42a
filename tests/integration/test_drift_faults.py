"""What the issue of a ranking that goes wrong looks like: seen in 500 requests, and only then.

The embedded model scores the questions of `benchmarks/drift_texts.py`, healthy and under each
fault; requests are drawn from these as `benchmarks/drift_simulation.py` says.
"""

from pathlib import Path

import pytest
from benchmarks.drift_simulation import (
    N_FAULTY,
    N_HEALTHY,
    Found,
    Pool,
    make_pools,
    simulate,
)
from benchmarks.drift_texts import questions

from tamis.engine.loading import load_model
from tamis.settings import ModelSettings

SCORES = {"top_psi", "top_ks", "all_psi", "all_ks"}
ORDER = {"retention", "kendall_tau"}


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pool]:
    model = load_model(ModelSettings())
    try:
        return make_pools(model, questions(40, seed=1), tmp_path_factory.mktemp("pools"))
    finally:
        model.backend.close()


@pytest.fixture(scope="module")
def found(pools: dict[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return simulate(pools, tmp_path_factory.mktemp("baseline"), seed=7)


def test_5000_healthy_requests_raise_no_alert(found: dict[str, Found]) -> None:
    assert N_HEALTHY == 5000
    healthy = found["healthy"]
    assert healthy.first == {}
    assert set(healthy.largest) >= SCORES | ORDER | {"truncation", "tokens", "nothing_relevant"}
    assert max(healthy.largest.values()) > 0.1  # it was looked at


@pytest.mark.parametrize(
    ("fault", "signals"),
    [
        ("tokenizer swapped", SCORES),
        ("half the documents cut before they came", {"tokens"}),
        ("half the documents cut by the server", {"tokens", "truncation"}),
        ("a wrong model", SCORES | {"kendall_tau"}),
        ("shuffled input", ORDER),
    ],
)
def test_each_fault_is_seen_within_500_requests(
    found: dict[str, Found], fault: str, signals: set[str]
) -> None:
    assert N_FAULTY == 500
    first = found[fault].first
    assert signals <= set(first), first
    assert max(first[signal] for signal in signals) <= 500


def test_a_shuffled_input_is_no_matter_of_scores(found: dict[str, Found]) -> None:
    assert not set(found["shuffled input"].first) & SCORES


def test_other_draws_of_healthy_requests_are_quiet_too(
    pools: dict[str, Pool], tmp_path: Path
) -> None:
    only = {"healthy": pools["healthy"]}
    for seed in (100, 200):
        assert simulate(only, tmp_path, seed=seed, n_healthy=2000)["healthy"].first == {}
