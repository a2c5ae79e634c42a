"""Quality against time of cascades, the time before a large model, and two models under load.

Usage: python -m benchmarks.cascade --data FOLDER --work FOLDER [--large FOLDER]
           [--queries N] [--timed N] [--rounds N] [--steps STEP …] [--sets SET …]

FOLDER with the data holds eval/ as `training` wants it; needs the extras `eval` and `bench`. Each
step keeps what it finds in the work folder, so that long ones can be run set by set; `report`
puts all of it together, saves it and draws docs/cascade.png.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cascade.load import measure_load
from benchmarks.cascade.plot import draw
from benchmarks.cascade.quality import (
    RETRIEVAL,
    SEED,
    SETS,
    measure,
    read_queries,
    score,
    scored,
    to_json,
)
from benchmarks.cascade.seconds import ALL, time_large, time_set
from benchmarks.cascade.stages import DTYPE
from benchmarks.cascade.tables import large_lines, load_lines, quality_lines
from benchmarks.results_file import save
from tamis.bench.random_checkpoint import write_random_checkpoint

AVERAGED = ("ndcg_at_10", "loss", "same_top_10", "n_kept", "seconds")
STEPS = ("score", "time", "large", "load", "report")


def main() -> int:
    """Run the steps that were asked for, in their order."""
    parser = argparse.ArgumentParser(prog="benchmarks.cascade", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--large", type=Path, help="random-weight large model; else it is made")
    parser.add_argument("--queries", type=int, default=40, help="of each set")
    parser.add_argument("--timed", type=int, default=2, help="more queries of each set to time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if {"score", "time"} & set(options.steps):
        score_and_time(options)
    if {"large", "load"} & set(options.steps):
        time_the_large_model(options)
    if "report" in options.steps:
        report(options)
    return 0


def score_and_time(options: argparse.Namespace) -> None:
    """Logits of each set's candidates, and the seconds that some of its queries take."""
    for name in options.sets:
        queries = read_queries(options.data, name, options.queries)
        if "score" in options.steps:
            score(name, queries, options.work)
        if "time" in options.steps:
            path = options.work / f"cpu-seconds-{name}.json"
            held = json.loads(path.read_text()) if path.exists() else {}
            done = len(held.get(ALL, []))
            taken = time_set(queries[done : done + options.timed], options.work)
            keep(path, {key: held.get(key, []) + more for key, more in taken.items()})


def time_the_large_model(options: argparse.Namespace) -> None:
    """What needs no quality: the large model's weights are random."""
    folder: Path = options.large or options.work / "random-large"
    if not (folder / "config.json").exists():
        write_random_checkpoint(folder)
    if "large" in options.steps:
        keep(options.work / "cpu-large.json", time_large(folder, options.work, options.rounds))
    if "load" in options.steps:
        keep(options.work / "load.json", measure_load(folder, options.work, options.rounds))


def report(options: argparse.Namespace) -> None:
    """Put the findings together, save them and draw them."""
    sets: dict[str, Any] = {}
    for name in SETS:
        queries = read_queries(options.data, name, options.queries)
        queries = scored(name, queries, options.work)
        taken = json.loads((options.work / f"cpu-seconds-{name}.json").read_text())
        rows = to_json(measure(name, queries, options.work))
        largest = max(len(query.documents) for query in queries)
        for row in rows:
            row["seconds"] = seconds_of(row, taken, largest)
        sets[name] = {
            "queries": len(queries),
            "candidates": statistics.mean(len(query.documents) for query in queries),
            "timed_queries": len(taken[ALL]),
            "rows": rows,
        }
    measured = {
        "seed": SEED,
        "second_stage": f"tamis-mini {DTYPE}, 12 layers, 512 tokens",
        "clock": "CPU seconds of both cores together; of the wall under load",
        "sets": sets,
        "mean_of_sets": mean_of(sets),
        "large": json.loads((options.work / "cpu-large.json").read_text()),
        "large_quality": "unmeasured: its weights are random",
        "load": json.loads((options.work / "load.json").read_text()),
    }
    for lines in (quality_lines, large_lines, load_lines):
        print(*lines(measured), "", sep="\n")
    print(save("cascade", measured))
    print(draw(measured))


def seconds_of(row: dict[str, Any], taken: dict[str, list[float]], largest: int) -> float:
    """Mean seconds of a query, between the measured numbers kept on a straight line.

    Retrieval has ordered its candidates already; with all of them kept no first stage runs.
    """
    if row["keep"] >= largest:
        return round(statistics.mean(taken[ALL]), 4)
    known = {0: 0.0} if row["first"] == RETRIEVAL else {}
    for key, seconds in taken.items():
        first, _, n_kept = key.partition("|")
        if first == row["first"]:
            known[int(n_kept)] = statistics.mean(seconds)
    known[largest] = known[0] + statistics.mean(taken[ALL])  # a margin may keep them all
    return round(float(np.interp(row["n_kept"], list(known), list(known.values()))), 4)


def mean_of(sets: dict[str, Any]) -> list[dict[str, Any]]:
    """Each cascade's means over the sets, every set counting alike."""
    means: list[dict[str, Any]] = []
    for rows in zip(*(found["rows"] for found in sets.values()), strict=True):
        mean = rows[0] | {key: statistics.mean(row[key] for row in rows) for key in AVERAGED}
        # of a mean of independent means
        squares = sum(row["loss_interval"] ** 2 for row in rows)
        means.append(mean | {"loss_interval": squares**0.5 / len(rows)})
    return means


def keep(path: Path, found: object) -> None:
    """Print a step's findings and put them into the work folder."""
    print(json.dumps(found, indent=2), flush=True)
    path.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
