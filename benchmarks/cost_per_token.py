"""Whether cost grows with tokens: time per token by number of documents and by their length.

Usage: python -m benchmarks.cost_per_token [--work FOLDER] [--model NAME] [--dtype DTYPE]
           [--documents N ...] [--tokens N ...] [--rounds N]

The model is an XLM-RoBERTa-large of random weights unless another is named. Attention costs more
a token in longer sequences: the second table also gives time per operation, which sets that share
aside. Run nothing else meanwhile.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.results_file import save
from tamis.bench.engine import measure_engine
from tamis.bench.gemm import EncoderSize, read_encoder_size
from tamis.bench.random_checkpoint import write_random_checkpoint
from tamis.bench.workloads import QUERY_TOKENS, even
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.location import locate
from tamis.settings import ModelSettings

SHORT_TOKENS = 40
PAIRED_TOKENS = QUERY_TOKENS + 4
"""A pair's tokens that are not the document's."""
TOKENS_A_ROUND = 3000


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--model")
    parser.add_argument("--dtype", choices=["float32", "int8"], default="int8")
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--tokens", type=int, nargs="+", default=[30, 60, 120, 250, 510])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    name: str = options.model or str(random_large(options.work))
    model = load_model(ModelSettings(name=name, dtype=options.dtype, cache_dir=options.work))
    size = read_encoder_size(locate(name, revision=None, offline=True))
    dtype, budget = model.facts.dtype, model.facts.max_batch_tokens
    measured: dict[str, Any] = {"dtype": dtype, "max_batch_tokens": budget}
    measured["by_documents"] = [
        row(model, size, n, SHORT_TOKENS, options.rounds if n < 1000 else 1)
        for n in options.documents
    ]
    measured["by_tokens_a_pair"] = [
        row(model, size, max(1, TOKENS_A_ROUND // n), n - PAIRED_TOKENS, options.rounds)
        for n in options.tokens
    ]
    for table in ("by_documents", "by_tokens_a_pair"):
        for measure in ("seconds_per_token", "seconds_per_operation"):
            found = [line[measure] for line in measured[table]]
            measured[f"{measure}_{table}_largest_to_smallest"] = max(found) / min(found)
    print(json.dumps(measured, indent=2))
    print(save("cost_per_token", measured))
    return 0


def random_large(work: Path) -> Path:
    """The large model's folder, written if it is not there."""
    folder = work / "random-large"
    if not (folder / "tokenizer_config.json").exists():
        write_random_checkpoint(folder)
    return folder


def row(
    model: LoadedModel, size: EncoderSize, n_documents: int, n_tokens: int, rounds: int
) -> dict[str, float]:
    """Median cost of one request with documents of equal length in tokens."""
    workload = even(n_documents, n_tokens)
    report = measure_engine(model, size, workload, rounds=rounds)
    pairs = model.tokenizer.encode(workload.query, workload.documents)
    operations = size.operations([pair.n_tokens for pair in pairs])
    line = {
        "n_documents": n_documents,
        "tokens_a_pair": report.n_tokens / n_documents,
        "n_rounds": rounds,
        "seconds": report.latency.p50_seconds,
        "seconds_per_token": report.latency.p50_seconds / report.n_tokens,
        "seconds_per_operation": report.latency.p50_seconds / operations,
    }
    print(json.dumps(line), flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main())
