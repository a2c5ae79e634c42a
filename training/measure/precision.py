"""What storing and computing in int8 costs: ranking, agreement, batch noise, speed."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from training.measure.matching import PairScorer, logits
from training.measure.measurement import Candidates, cached_features, figures
from training.measure.sharing import KIND
from training.model.base import Floats
from training.model.folder import Head

# Arithmetics are compared on the first queries of each set alone, for lack of time.
N_QUERIES = {
    "scifact": 2,
    "cranfield": 3,
    "noveleval": 7,
    "rgb-zh-int": 5,
    "limit-small": 50,
    "vaswani": 5,
    "mixed-en": 5,
    "mixed-zh": 5,
}
LARGEST_LOSS = 0.005
# The allowed change of a logit with its batch: half a percent of a score at most.
LARGEST_NOISE = 0.02
N_NOISE_DOCUMENTS = 48
N_SPEED_TOKENS = 30_000


def comparison_set(candidates: Candidates) -> Candidates:
    """The queries that precision is measured on."""
    return candidates.first(N_QUERIES[candidates.evaluation.name])


def compare(
    exact: Path, shipped: Path, candidates: Candidates, head: Head, work: Path
) -> dict[str, object]:
    """What the file's int8 rows cost on all queries, and int8 arithmetic on the first ones.

    `exact` is the folder of the same weights in float32.
    """
    features = {
        name: cached_features(folder, KIND, candidates, work)
        for name, folder in (("weights_float32", exact), ("file_int8", shipped))
    }
    scores = {name: logits(values, head) for name, values in features.items()}
    ndcg = {name: figures(candidates, values)["nDCG@10"] for name, values in scores.items()}
    part = comparison_set(candidates)
    first, computed = (
        logits(cached_features(shipped, kind, part, work), head) for kind in ("float32", "int8")
    )
    alike = [figures(part, values)["nDCG@10"] for values in (first, computed)]
    return {
        "queries": len(candidates.run),
        "nDCG@10": ndcg,
        "file_loss": round(ndcg["weights_float32"] - ndcg["file_int8"], 4),
        "file_against_weights": agreement(
            candidates, scores["weights_float32"], scores["file_int8"]
        ),
        "arithmetic": {
            "queries": len(part.run),
            "float32": alike[0],
            "int8": alike[1],
            "int8_loss": round(alike[0] - alike[1], 4),
            "int8_against_float32": agreement(part, first, computed),
        },
    }


def agreement(part: Candidates, reference: Floats, other: Floats) -> dict[str, float]:
    """How alike two scorings order each query's candidates, and how far logits move."""
    ends = np.cumsum([0, *(len(found) for found in part.run.values())]).tolist()
    rows = [(reference[a:b], other[a:b]) for a, b in pairwise(ends)]
    orders = [(np.argsort(-one), np.argsort(-two)) for one, two in rows]
    top_five = [set(one[:5]) != set(two[:5]) for one, two in orders]
    difference = np.abs(reference - other)
    return {
        "kendall_tau": round(float(np.mean([kendalltau(one, two)[0] for one, two in rows])), 4),
        "top_1_changed": round(float(np.mean([one[0] != two[0] for one, two in orders])), 4),
        "top_5_changed": round(float(np.mean(top_five)), 4),
        "mean_logit_difference": round(float(difference.mean()), 5),
        "largest_logit_difference": round(float(difference.max()), 5),
        "logit_standard_deviation": round(float(reference.std()), 4),
    }


def batch_noise(
    folder: Path, compute_type: str, candidates: Candidates, head: Head, work: Path
) -> dict[str, float]:
    """The largest change of a logit with its batch.

    Each pair alone against the same in batches of like length, as `TokenEncoder.stream` makes them.
    """
    scorer = PairScorer(folder, compute_type, work)
    evaluation = candidates.evaluation
    documents = list(evaluation.documents.values())[:N_NOISE_DOCUMENTS]
    query = next(iter(evaluation.queries.values()))
    pairs = [(0, i) for i in range(len(documents))]
    together = logits(scorer.features([query], documents, pairs, "together"), head)
    alone = np.concatenate(
        [logits(scorer.features([query], [text], [(0, 0)], ""), head) for text in documents]
    )
    return {"pairs": len(documents), "largest": round(float(np.abs(together - alone).max()), 7)}


def tokens_per_second(folder: Path, compute_type: str, candidates: Candidates, work: Path) -> float:
    """Encoding speed on some documents of a set."""
    scorer = PairScorer(folder, compute_type, work)
    chosen: list[str] = []
    n_tokens = 0
    for text in candidates.evaluation.documents.values():
        if n_tokens > N_SPEED_TOKENS:
            break
        chosen.append(text)
        n_tokens += scorer.length(text)
    began = time.perf_counter()
    scorer.encode(chosen, "passage:", 512, "speed")
    return round(n_tokens / (time.perf_counter() - began), 1)


def choose_dtype(comparisons: dict[str, dict[str, Any]], noise: float) -> str:
    """`int8` if it costs at most 0.005 nDCG@10 on every set and its noise is small."""
    losses = [float(row["arithmetic"]["int8_loss"]) for row in comparisons.values()]
    cheap = max(losses) <= LARGEST_LOSS and noise <= LARGEST_NOISE
    return "int8" if cheap else "float32"
