"""Whether the watch on the ranking sees faults, and is quiet without: figures and a table.

Usage: python -m benchmarks.drift_simulation [--score] [--healthy N] [--runs N] [--window N]

Requests are drawn from the pools of `drift_pools.py`: a question, ten of its twelve candidates, in
an order as a first stage would give them (relevance and noise). In each run a baseline is recorded
from 500 healthy requests, 5,000 others are watched, and then 500 of each fault on top of a window
of healthy ones. `--score` scores the pools again first, with the embedded model.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import drift_pools
from benchmarks.drift_pools import HEALTHY, Pool
from benchmarks.results_file import save
from tamis.engine.loading import load_model
from tamis.relevance.baseline import Snapshot, baseline_of, write_baseline
from tamis.relevance.monitor import RelevanceMonitor
from tamis.relevance.signals import Ranking
from tamis.settings import ModelSettings, RelevanceSettings

N_BASELINE = 500
N_HEALTHY = 5000
N_FAULTY = 500
LOOK_EVERY = 10


@dataclass(frozen=True)
class Found:
    """What the watch made of some requests.

    Attributes:
        first: The request, from 1, at which each signal first was beyond its line.
        largest: Each signal's largest distance, as a share of its line.
    """

    first: dict[str, int]
    largest: dict[str, float]


def record(pool: Pool, *, seed: int, n: int = N_BASELINE) -> Snapshot:
    """The last of a number of healthy requests, as a server would give them."""
    monitor = RelevanceMonitor(RelevanceSettings(window=n))
    for ranking in pool.requests(n, seed=seed):
        monitor.observe(ranking)
    (snapshot,) = monitor.snapshots()
    return snapshot


def watch(monitor: RelevanceMonitor, requests: Iterator[Ranking]) -> Found:
    """Feed a monitor, and look every few requests."""
    first: dict[str, int] = {}
    largest: dict[str, float] = {}
    for number, ranking in enumerate(requests, 1):
        monitor.observe(ranking)
        if number % LOOK_EVERY:
            continue
        for drift in monitor.drifts():
            for verdict in drift.verdicts:
                share = verdict.distance / verdict.line
                largest[verdict.signal] = max(share, largest.get(verdict.signal, 0.0))
                if verdict.crossed:
                    first.setdefault(verdict.signal, number)
    return Found(first, largest)


def simulate(
    pools: dict[str, Pool],
    work: Path,
    *,
    seed: int,
    n_healthy: int = N_HEALTHY,
    window: int = N_FAULTY,
) -> dict[str, Found]:
    """A baseline, healthy requests, and each fault after a window of healthy ones."""
    file = work / "baseline.json"
    write_baseline(file, baseline_of(record(pools[HEALTHY], seed=seed)))
    settings = RelevanceSettings(window=window, baseline=file)
    found = {
        HEALTHY: watch(
            RelevanceMonitor(settings), pools[HEALTHY].requests(n_healthy, seed=seed + 1)
        )
    }
    for number, fault in enumerate(name for name in pools if name != HEALTHY):
        monitor = RelevanceMonitor(settings)
        for ranking in pools[HEALTHY].requests(window, seed=seed + 2 + number):
            monitor.observe(ranking)
        found[fault] = watch(monitor, pools[fault].requests(N_FAULTY, seed=seed + 100 + number))
    return found


def main() -> int:
    """Simulate, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--score", action="store_true")
    parser.add_argument("--healthy", type=int, default=N_HEALTHY)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--window", type=int, default=N_FAULTY)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.score:
            drift_pools.write(drift_pools.score(load_model(ModelSettings()), work))
        pools = drift_pools.read()
        runs = [
            simulate(pools, work, seed=1000 * run, n_healthy=options.healthy, window=options.window)
            for run in range(options.runs)
        ]
    measured: dict[str, Any] = {
        "healthy_requests": options.healthy,
        "faulty_requests": N_FAULTY,
        "window": options.window,
        "runs": options.runs,
        "found": {name: _summary([run[name] for run in runs]) for name in runs[0]},
    }
    print(json.dumps(measured, indent=2))
    print(save("drift_simulation", measured))
    return 0


def _summary(runs: Sequence[Found]) -> dict[str, Any]:
    """Over all runs: in how many each signal alarmed, when at the latest, and how near it came."""
    signals = sorted({signal for run in runs for signal in run.largest})
    return {
        "runs_with_an_alert": sum(bool(run.first) for run in runs),
        "first_alert_at_the_latest": max(
            (min(run.first.values()) for run in runs if run.first), default=None
        ),
        "signals": {
            signal: {
                "runs_with_an_alert": sum(signal in run.first for run in runs),
                "largest_distance_by_line": round(
                    max(run.largest.get(signal, 0.0) for run in runs), 3
                ),
            }
            for signal in signals
        },
    }


if __name__ == "__main__":
    sys.exit(main())
