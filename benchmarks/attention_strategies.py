"""What length buckets cost attention, and what they spare: calls, padding, time on a CPU.

Usage: python -m benchmarks.attention_strategies [--rounds N]

One layer's attention of bge-reranker-v2-m3's shape over the pairs of a request as retrieval brings
it (lengths of `rag_mix`), cut into batches by token budget, longest first. How many calls and how
much padding there are holds on any device; the times are this CPU's. Run nothing else meanwhile.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results_file import save
from tamis.bench.workloads import QUERY_TOKENS
from tamis.engine.buckets import MOST_PADDING, sort_into_buckets
from tamis.engine.device import usable_cores
from tamis.engine.runtime import DEFAULT_BATCH_TOKENS
from tamis.engine.torch.attention import Spans, Strategy, attend_each, attend_in_buckets

N_DOCUMENTS = 100
N_HEADS, HEAD_SIZE = 16, 64
SHARES = (0, 1 / 16, MOST_PADDING, 1 / 4)
DTYPES = (torch.float32, torch.bfloat16)
CPU = torch.device("cpu")

Edges = NDArray[np.int32]


def main() -> int:
    """Count, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(usable_cores())
    measured: dict[str, Any] = {"n_documents": N_DOCUMENTS}
    for device, budget in DEFAULT_BATCH_TOKENS.items():
        batches = batches_of(budget)
        row: dict[str, Any] = {
            "batches": len(batches),
            "sequences": sum(len(edges) - 1 for edges in batches),
            "buckets_by_most_padding": {f"{share:.3f}": counts(batches, share) for share in SHARES},
            "milliseconds_on_this_cpu": {
                str(dtype): times(batches, dtype, options.rounds) for dtype in DTYPES
            },
        }
        measured[f"budget of {device}, {budget} tokens"] = row
        print(device, row)
    print(save("attention_strategies", measured))
    return 0


def batches_of(budget: int) -> list[Edges]:
    """Where sequences start and end, of each batch of one request."""
    lengths = np.random.default_rng(2).lognormal(np.log(120), 0.65, N_DOCUMENTS)
    batches: list[list[int]] = [[]]
    for length in sorted((np.clip(lengths, 20, 494) + QUERY_TOKENS + 4).astype(int))[::-1]:
        if sum(batches[-1]) + length > budget:
            batches.append([])
        batches[-1].append(int(length))
    return [np.cumsum([0, *batch], dtype=np.int32) for batch in batches]


def counts(batches: list[Edges], most_padding: float) -> dict[str, float]:
    """Calls of a layer, and the share of places that is padding."""
    buckets = [
        bucket
        for edges in batches
        for bucket in sort_into_buckets(edges, most_padding=most_padding)
    ]
    places = sum(bucket.filled.size for bucket in buckets)
    tokens = sum(int(edges[-1]) for edges in batches)
    return {"calls": len(buckets), "padding": 1 - tokens / places}


@torch.inference_mode()
def times(batches: list[Edges], dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Medians of one layer's attention over all batches, the strategies in turn."""
    strategies: Mapping[str, Strategy] = {
        "each": attend_each,
        "in buckets": attend_in_buckets(dtype),
    }
    qkvs = [torch.randn(int(edges[-1]), 3, N_HEADS, HEAD_SIZE).to(dtype) for edges in batches]
    spans = [Spans.put(edges, CPU) for edges in batches]
    found: dict[str, list[float]] = {name: [] for name in strategies}
    for _ in range(rounds + 1):  # the first warms up
        for name, strategy in strategies.items():
            attends = [strategy(span) for span in spans]  # once for all layers, so not timed
            started = time.perf_counter()
            for attend, qkv in zip(attends, qkvs, strict=True):
                attend(qkv)
            found[name].append((time.perf_counter() - started) * 1000)
    return {name: median(elapsed[1:]) for name, elapsed in found.items()}


if __name__ == "__main__":
    sys.exit(main())
