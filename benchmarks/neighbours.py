"""How much slower a model is while other processes want the same cores.

Usage: python -m benchmarks.neighbours [--work FOLDER] [--documents N] [--rounds N]
           [--model NAME] [--dtype DTYPE] [--name NAME]

One process has the threads of CTranslate2 spin at barriers as libgomp does by default (before),
the other as tamis sets it (after). They take turns within each round: alone, with 1, 2 and 4
processes that compute all the time, and with a copy of the same process that scores all the time.
A fair share of the cores makes a pass (cores + neighbours) / cores times as long, and twice as long
with another tamis. Nothing else may run meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any

from benchmarks.results_file import RESULTS, save
from tamis.bench.workloads import rag_mix
from tamis.engine.ctranslate2.kernels import SPIN_VARIABLE
from tamis.engine.device import usable_cores
from tamis.engine.loading import load_model
from tamis.scheduler.scheduler import score_now
from tamis.settings import DEFAULT_MODEL, ModelSettings

LIBGOMP_DEFAULT = "300000"
SETTINGS = {"before": {SPIN_VARIABLE: LIBGOMP_DEFAULT}, "after": {}}
BUSY = (0, 1, 2, 4)
OTHER = "another tamis"
SETTLE_SECONDS = 0.2  # until the scheduler has spread the processes


def main() -> int:
    """Measure, print and save; or, as one of the processes, score when told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--name", default="tamis-mini")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--documents", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--score", choices=["told", "always"], help="be one of the processes")
    options = parser.parse_args()
    if options.score:
        score(options)
        return 0
    measured = measure(options.rounds)
    print(json.dumps(measured, indent=2))
    held = RESULTS / "neighbours.json"
    before = json.loads(held.read_text())["measured"] if held.exists() else {}
    print(save("neighbours", before | {options.name: measured}))
    return 0


def measure(n_rounds: int) -> dict[str, Any]:
    """Seconds of a pass by setting and neighbours, medians; and times the pass alone."""
    seconds: dict[str, dict[str, list[float]]] = {setting: {} for setting in SETTINGS}
    with ExitStack() as stack:
        told = {name: stack.enter_context(tamis(name, "told")) for name in SETTINGS}
        for _ in range(n_rounds):
            for n_busy in BUSY:
                with ExitStack() as neighbours:
                    for _ in range(n_busy):
                        neighbours.enter_context(busy())
                    time.sleep(SETTLE_SECONDS)
                    for name, process in told.items():
                        seconds[name].setdefault(str(n_busy), []).append(one_pass(process))
            for name, process in told.items():
                with tamis(name, "always"):
                    seconds[name].setdefault(OTHER, []).append(one_pass(process))
    return {name: summary(runs) for name, runs in seconds.items()}


def summary(runs: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, how many times the pass alone they are, and that against the fair share."""
    alone = median(runs["0"])
    found: dict[str, Any] = {}
    for neighbours, seconds in runs.items():
        n_cores = usable_cores()
        fair = 2.0 if neighbours == OTHER else max(1.0, (n_cores + int(neighbours)) / n_cores)
        times = median(seconds) / alone
        found[neighbours] = {
            "seconds": median(seconds),
            "times": times,
            "of_fair_share": times / fair,
            "all_seconds": seconds,
        }
    return found


@contextmanager
def tamis(setting: str, when: str) -> Generator[subprocess.Popen[str], None, None]:
    """A process with the model loaded, ended afterwards."""
    command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--score", when]
    with subprocess.Popen(
        command,
        env=os.environ | SETTINGS[setting],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _lines(process.stdout).readline()  # it is ready
            yield process
        finally:
            process.kill()


@contextmanager
def busy() -> Generator[None, None, None]:
    """A process that takes all it gets of one core."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def one_pass(process: subprocess.Popen[str]) -> float:
    """Seconds that the process takes for its documents."""
    asked = _lines(process.stdin)
    asked.write("\n")
    asked.flush()
    return float(_lines(process.stdout).readline())


def score(options: argparse.Namespace) -> None:
    """Load the model, say so, then score whenever a line comes; or without end."""
    model = load_model(
        ModelSettings(name=options.model, dtype=options.dtype, cache_dir=options.work)
    )
    mix = rag_mix(options.documents)
    pairs = model.tokenizer.encode(mix.query, mix.documents)

    def run() -> float:
        started = time.perf_counter()
        score_now(model.backend, pairs, max_batch_tokens=model.facts.max_batch_tokens)
        return time.perf_counter() - started

    run()
    print("ready", flush=True)
    while options.score == "always":
        run()
    for _ in sys.stdin:
        print(run(), flush=True)


def _lines(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "both streams of the process are pipes"
    return stream


if __name__ == "__main__":
    sys.exit(main())
