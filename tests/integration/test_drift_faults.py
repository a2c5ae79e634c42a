"""A ranking that goes wrong is seen within 500 requests; one that does not stays quiet for 5,000.

Requests are drawn from what the embedded model makes of the questions of
`benchmarks/drift_texts.py`, healthy and under each fault (`benchmarks/drift_pools.py`).
"""

from pathlib import Path

import numpy as np
import pytest
from benchmarks import drift_pools
from benchmarks.drift_pools import CUT_BEFORE, CUT_HERE, HEALTHY, SHUFFLED, SWAPPED, WRONG, Pool
from benchmarks.drift_simulation import N_FAULTY, N_HEALTHY, Found, simulate

from tamis.engine.loading import load_model
from tamis.settings import ModelSettings

SCORES = {"top_psi", "top_ks", "all_psi", "all_ks"}
ORDER = {"retention", "kendall_tau"}


@pytest.fixture(scope="module")
def pools() -> dict[str, Pool]:
    return drift_pools.read()


@pytest.fixture(scope="module")
def found(pools: dict[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return simulate(pools, tmp_path_factory.mktemp("baseline"), seed=7)


def test_the_kept_scores_are_those_of_the_embedded_model(pools: dict[str, Pool]) -> None:
    model = load_model(ModelSettings())
    try:
        some = drift_pools.scored(model, drift_pools.asked()[:2])
    finally:
        model.backend.close()
    assert np.abs(some.logits - pools[HEALTHY].logits[:2]).max() < 0.01
    assert some.n_tokens.tolist() == pools[HEALTHY].n_tokens[:2].tolist()


def test_5000_healthy_requests_raise_no_alert(found: dict[str, Found]) -> None:
    assert N_HEALTHY == 5000
    healthy = found[HEALTHY]
    assert healthy.first == {}
    assert set(healthy.largest) >= SCORES | ORDER | {"truncation", "tokens", "nothing_relevant"}
    assert max(healthy.largest.values()) > 0.1  # it was looked at


@pytest.mark.parametrize(
    ("fault", "signals"),
    [
        (SWAPPED, SCORES),
        (CUT_BEFORE, {"top_ks", "kendall_tau", "tokens"}),
        (CUT_HERE, {"top_ks", "kendall_tau", "tokens", "truncation"}),
        (WRONG, SCORES | {"kendall_tau"}),
        (SHUFFLED, ORDER | {"top5_overlap"}),
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
    assert not set(found[SHUFFLED].first) & SCORES


def test_other_draws_of_healthy_requests_are_quiet_too(
    pools: dict[str, Pool], tmp_path: Path
) -> None:
    only = {HEALTHY: pools[HEALTHY]}
    for seed in (100, 200):
        assert simulate(only, tmp_path, seed=seed, n_healthy=2000)[HEALTHY].first == {}
