"""Measures any model folder or name through tamis's public interface.

    python -m training.measure.evaluate MODEL --data DATA --output results/shipped.json

The first stage is the one of `training.measure.measurement`; the model scores every candidate of
every query with `Reranker.score`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import cast

import numpy as np
from tqdm import tqdm

from tamis import Reranker
from tamis.settings import DtypeName
from training.data.corpora import EVALUATION_SETS
from training.machine import describe_machine
from training.measure.measurement import Candidates, figures, load_candidates
from training.model.base import Floats

# Queries whose pairs go to the model at once: enough to batch, few enough to show progress.
QUERIES_AT_ONCE = 4


def score_set(reranker: Reranker, candidates: Candidates) -> Floats:
    """Logits of all pairs, in the order of `candidates.pairs()`."""
    evaluation = candidates.evaluation
    texts = [
        (evaluation.queries[query], evaluation.documents[document])
        for query, document in candidates.pairs()
    ]
    step = max(1, QUERIES_AT_ONCE * len(texts) // max(1, len(candidates.run)))
    starts = tqdm(range(0, len(texts), step), desc=evaluation.name)
    return np.concatenate([reranker.score(texts[start : start + step]) for start in starts])


def evaluate(
    model: str, data: Path, names: list[str], *, dtype: str, max_length: int, limit: int
) -> dict[str, object]:
    """Figures of BM25 and the model on each set; `limit` keeps the first queries only."""
    reranker = Reranker(
        model=model, device="cpu", dtype=cast("DtypeName", dtype), max_length=max_length
    )
    table: dict[str, object] = {}
    for name in names:
        candidates = load_candidates(data, name)
        candidates = candidates.first(limit) if limit else candidates
        began = time.perf_counter()
        scores = score_set(reranker, candidates)
        seconds = time.perf_counter() - began
        table[name] = {
            "queries": len(candidates.run),
            "pairs": len(candidates.pairs()),
            "bm25": figures(candidates),
            "model": figures(candidates, scores),
            "seconds": round(seconds, 1),
        }
    return {"max_length": max_length, "dtype": dtype, "sets": table}


def main() -> None:
    """Parses the command line, evaluates, writes JSON."""
    parser = argparse.ArgumentParser(prog="training.measure.evaluate", description=__doc__)
    parser.add_argument("model", help="a model folder, or a name tamis knows")
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/")
    parser.add_argument("--sets", nargs="+", default=list(EVALUATION_SETS))
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "int8"])
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--limit", type=int, default=0, help="first queries of each set; 0: all")
    parser.add_argument("--output", type=Path, help="where the JSON goes; printed without")
    options = parser.parse_args()
    found = evaluate(
        options.model,
        options.data,
        options.sets,
        dtype=options.dtype,
        max_length=options.max_length,
        limit=options.limit,
    )
    text = json.dumps({"machine": describe_machine(), **found}, indent=2) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
