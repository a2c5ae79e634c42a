"""How much less time tamis-mini takes than bge-reranker-v2-m3's architecture, both by default.

Usage: python -m benchmarks.embedded_model [--rounds N]

50 documents of 120 tokens with one query of 17, in turn: tamis-mini and an XLM-RoBERTa-large of
seeded random weights, each in `Reranker` with its defaults. Run nothing else meanwhile.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.results_file import save
from tamis import Reranker
from tamis.bench.random_checkpoint import write_random_checkpoint
from tamis.bench.workloads import even
from tamis.settings import DEFAULT_MODEL

N_DOCUMENTS, N_TOKENS = 50, 120
AIM = 10
SETTLE_SECONDS = 0.4
"""Until the threads of the model that was asked before sleep."""


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        large = write_random_checkpoint(Path(folder) / "random-large")
        seconds = measure({"tamis-mini": DEFAULT_MODEL, "large": str(large)}, rounds)
    ratios = [b / a for a, b in zip(seconds["tamis-mini"], seconds["large"], strict=True)]
    measured = {
        "documents": N_DOCUMENTS,
        "tokens": N_TOKENS,
        "seconds": seconds,
        "times_faster_each_round": [round(ratio, 2) for ratio in ratios],
        "times_faster": round(statistics.median(ratios), 2),
        "aim": AIM,
    }
    print(measured)
    save("embedded_model", measured)
    return 0


def measure(models: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round by model; the first, which warms up, is left out."""
    rerankers = {name: Reranker(model) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):
        asked = even(N_DOCUMENTS, N_TOKENS, seed=number)
        for name, reranker in rerankers.items():
            time.sleep(SETTLE_SECONDS)
            began = time.perf_counter()
            reranker.rank(asked.query, asked.documents)
            seconds[name].append(round(time.perf_counter() - began, 4))
    for reranker in rerankers.values():
        reranker.close()
    return {name: values[1:] for name, values in seconds.items()}


if __name__ == "__main__":
    raise SystemExit(main())
