"""MKL or oneDNN, AVX2 or AVX-512, one worker or several: what ctranslate2 makes of the same cores.

Usage: python -m benchmarks.kernels [--model NAME] [--dtype DTYPE] [--work FOLDER]
           [--documents N] [--rounds N] [--workers]

A process has one choice of kernels for good, so each is measured in processes of its own, in turn.
In each of them one worker with all threads runs the RAG mix and a single document, then (--workers)
as many workers as there are threads, one thread each. Logits are compared with those of
ctranslate2's own choice. Run nothing else meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ctranslate2 import Encoder, StorageView

from benchmarks.cost_per_token import random_large
from benchmarks.results_file import save
from tamis.bench.workloads import even, rag_mix
from tamis.engine.checkpoint import RUNTIME_FOLDER, read_checkpoint
from tamis.engine.collate import PackedBatch, collate
from tamis.engine.ctranslate2.converted import converted_folder
from tamis.engine.ctranslate2.kernels import (
    ENVIRONMENTS,
    environment_of,
    own_choice,
    with_other_vectors,
)
from tamis.engine.device import usable_cores
from tamis.engine.loading import load_model
from tamis.engine.location import locate
from tamis.engine.pairs import EncodedPair
from tamis.scheduler.queue import Job, PairQueue
from tamis.scheduler.scheduler import score_now
from tamis.settings import ModelSettings

ONE_WORKER_BUDGET, WORKERS_BUDGET = 1024, 512
SINGLE_TOKENS = 250


def main() -> int:
    """Measure, print and save; or, as one of the processes, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--dtype", choices=["float32", "int8"], default="int8")
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--documents", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", action="store_true")
    parser.add_argument("--one", action="store_true", help="measure in this process")
    options = parser.parse_args()
    options.model = options.model or str(random_large(options.work))
    if options.one:
        print(json.dumps(measure_one(options)))
        return 0
    name = f"kernels_{Path(options.model).name}_{options.dtype}"
    name += "_workers" if options.workers else ""
    measured = {"model": Path(options.model).name, "dtype": options.dtype} | measure(options.rounds)
    print(json.dumps(measured, indent=2))
    print(save(name, measured))
    return 0


def measure(n_rounds: int) -> dict[str, Any]:
    """Each choice of kernels that this processor has, in turn; medians over the rounds."""
    own = own_choice()
    assert own is not None, "this processor leaves ctranslate2 no choice"
    choices = [k for k in ENVIRONMENTS if with_other_vectors(own) or "avx512" not in k]
    runs: dict[str, list[dict[str, Any]]] = {kernels: [] for kernels in choices}
    for _ in range(n_rounds):
        for kernels in choices:
            command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--one"]
            environment = environment_of(kernels, os.environ)
            runs[kernels].append(
                json.loads(subprocess.check_output(command, env=environment, text=True))
            )
    reference = np.array(runs[own][0]["logits"])
    measured: dict[str, Any] = {"own choice": own, "logits_std": float(reference.std())}
    for kernels, found in runs.items():
        figures = {key: median(run[key] for run in found) for key in found[0] if key != "logits"}
        difference = np.array(found[0]["logits"]) - reference
        measured[kernels] = figures | {
            "largest_logit_difference": float(np.abs(difference).max()),
            "rms_logit_difference": float(np.sqrt((difference**2).mean())),
        }
    return measured


def measure_one(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second on the mix and seconds of a document: one worker, then one a thread."""
    settings = ModelSettings(
        name=options.model,
        runtime="ctranslate2",
        device="cpu",
        dtype=options.dtype,
        cache_dir=options.work,
    )
    model = load_model(settings)
    mix, lone = rag_mix(options.documents), even(1, SINGLE_TOKENS)
    pairs = model.tokenizer.encode(mix.query, mix.documents)
    single = model.tokenizer.encode(lone.query, lone.documents)
    n_tokens = sum(len(batch.token_ids) for batch in batches(pairs, WORKERS_BUDGET))
    seconds, logits = timed(
        lambda: score_now(model.backend, pairs, max_batch_tokens=ONE_WORKER_BUDGET)
    )
    alone, _ = timed(lambda: score_now(model.backend, single, max_batch_tokens=ONE_WORKER_BUDGET))
    found = {
        "one_worker_tokens_per_second": n_tokens / seconds,
        "one_worker_seconds_for_one_document": alone,
        "logits": logits.tolist(),
    }
    model.backend.close()
    if options.workers:
        found |= spread(options, pairs, single, n_tokens)
    return found


def spread(
    options: argparse.Namespace, pairs: list[EncodedPair], single: list[EncodedPair], n_tokens: int
) -> dict[str, float]:
    """The same with as many workers as threads."""
    threads = usable_cores()
    folder = locate(options.model, revision=None, offline=True)
    converted = converted_folder(
        read_checkpoint(folder), dtype=options.dtype, cache_dir=options.work
    )
    encoder = Encoder(
        str(converted / RUNTIME_FOLDER),
        compute_type=options.dtype,
        inter_threads=threads,
        intra_threads=1,
    )

    def run(scored: list[EncodedPair]) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda batch: forward(encoder, batch), batches(scored, WORKERS_BUDGET)))

    run(single)
    seconds, _ = timed(lambda: run(pairs))
    alone, _ = timed(lambda: run(single))
    return {
        "workers_tokens_per_second": n_tokens / seconds,
        "workers_seconds_for_one_document": alone,
    }


def batches(pairs: list[EncodedPair], budget: int) -> list[PackedBatch]:
    """Batches as the scheduler makes them."""
    job = Job(pairs)
    queue = PairQueue(max_tokens=job.n_tokens)
    queue.add(job)
    made: list[PackedBatch] = []
    while batch := queue.take(budget):
        made.append(collate(batch.pairs))
    return made


def forward(encoder: Encoder, batch: PackedBatch) -> None:
    """One pass; token types are left out, as they do not change the time."""
    lengths = batch.lengths
    padded = np.zeros((len(lengths), int(lengths.max())), dtype=np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = batch.token_ids
    output = encoder.forward_batch(StorageView.from_array(padded), StorageView.from_array(lengths))
    np.array(output.last_hidden_state if output.pooler_output is None else output.pooler_output)


def timed(run: Any) -> tuple[float, Any]:
    """The better of two runs in seconds, and what it gave."""
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        found = run()
        best = min(best, time.perf_counter() - started)
    return best, found


if __name__ == "__main__":
    sys.exit(main())
