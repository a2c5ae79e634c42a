"""Fits the head: the logit's scale and offset, on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from training.data.practice import PracticeList, source_shares
from training.data.texts import is_one_in
from training.measure.matching import COSINE, IN_PHRASES, MAXSIM, logits, sigmoid
from training.measure.measurement import Candidates, ndcg_of_each_query
from training.model.base import Floats
from training.model.folder import Head

# What the sigmoid means: the chance that a passage answers, among candidates of which one in
# five does; of the others most look alike (found by BM25, or of the same article), as after a
# first stage.
KIND_SHARES = {"positive": 0.2, "lexical": 0.4, "article": 0.1, "random": 0.3}

_N_BINS = 10
_N_NEWTON_STEPS = 50

Numbers = NDArray[np.float64]


def practice_ranking(
    lists: Sequence[PracticeList], candidates: Candidates, features: Floats, head: Head
) -> dict[str, dict[str, float]]:
    """nDCG@10 on the practice lists of each feature and of the logit, by source and in all."""
    shares = source_shares({practice.source for practice in lists})
    sources = np.array([practice.source for practice in lists])
    kinds = {
        "maxsim": features[:, MAXSIM],
        "in_phrases": features[:, IN_PHRASES],
        "cosine": features[:, COSINE],
        "logit": logits(features, head),
    }
    table: dict[str, dict[str, float]] = {}
    for kind, scores in kinds.items():
        each = ndcg_of_each_query(candidates, scores)
        row = {name: float(each[sources == name].mean()) for name in sorted(shares)}
        mean = sum(shares[name] * value for name, value in row.items())
        table[kind] = {
            "mean": round(mean, 4),
            **{name: round(value, 4) for name, value in row.items()},
        }
    return table


def is_for_calibration(practice: PracticeList) -> bool:
    """Half of the articles are kept from the fit, too, in all languages alike."""
    unit = practice.query if practice.source == "pubmedqa" else practice.group
    return is_one_in(2, f"{unit}, fit")


def pair_table(lists: Sequence[PracticeList]) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """Label, weight, and held-out mark of each pair; a source counts as much as its share."""
    shares = source_shares({practice.source for practice in lists})
    kinds = np.array([kind for practice in lists for kind in practice.kinds])
    sources = np.array([practice.source for practice in lists for _ in practice.kinds])
    held_out = np.array(
        [is_for_calibration(practice) for practice in lists for _ in practice.kinds]
    )
    weights = np.zeros(len(kinds))
    for source in shares:
        for kind, part in product(KIND_SHARES, (True, False)):
            chosen = (sources == source) & (kinds == kind) & (held_out == part)
            weights[chosen] = shares[source] * KIND_SHARES[kind] / max(1, chosen.sum())
    return (kinds == "positive").astype(float), weights, held_out


def fit_logit(design: Numbers, labels: Numbers, weights: Numbers) -> Numbers:
    """Weighted logistic regression: the coefficients of the design's columns, by Newton's steps."""
    spread = np.abs(design).max(axis=0)
    scaled = design / spread
    solution = np.zeros(design.shape[1])
    for _ in range(_N_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-scaled @ solution))
        gradient = scaled.T @ (weights * (labels - chance))
        curvature = (scaled * (weights * chance * (1 - chance))[:, None]).T @ scaled
        solution = solution + np.linalg.solve(curvature, gradient)
    fitted: Numbers = solution / spread
    return fitted


def fit_head(lists: Sequence[PracticeList], features: Floats, unfitted: Head) -> Head:
    """Fits scale and offset on the lists that are not held out; rounded as they are written."""
    labels, weights, held_out = pair_table(lists)
    values = logits(features[~held_out], unfitted).astype(np.float64)
    design = np.stack([values, np.ones_like(values)], axis=1)
    scale, product = fit_logit(design, labels[~held_out], weights[~held_out]).tolist()
    return replace(unfitted, scale=round(scale, 2), offset=round(-product / scale, 5))


def calibration(lists: Sequence[PracticeList], features: Floats, head: Head) -> dict[str, object]:
    """How well the sigmoid holds on the held-out lists.

    Expected calibration error in ten bins of equal width, with the fit's weights; and the
    share of each kind of pair above 0.5.
    """
    labels, weights, held_out = pair_table(lists)
    scores = sigmoid(logits(features, head))[held_out]
    labels, weights = labels[held_out], weights[held_out]
    kinds = np.array([kind for practice in lists for kind in practice.kinds])[held_out]
    bins = np.minimum((scores * _N_BINS).astype(int), _N_BINS - 1)
    rows = [_bin(scores, labels, weights, bins == number) for number in range(_N_BINS)]
    rows = [row for row in rows if row["share"]]
    return {
        "pairs": int(held_out.sum()),
        "pairs_fitted_on": int((~held_out).sum()),
        "expected_calibration_error": round(
            sum(row["share"] * abs(row["score"] - row["relevant"]) for row in rows), 4
        ),
        "bins": rows,
        "above_one_half": {
            kind: _share_above(scores[kinds == kind], weights[kinds == kind])
            for kind in KIND_SHARES
        },
    }


def _share_above(scores: Numbers, weights: Numbers) -> float:
    return round(float(weights[scores > 0.5].sum() / weights.sum()), 4)


def _bin(
    scores: Numbers, labels: Numbers, weights: Numbers, chosen: NDArray[np.bool_]
) -> dict[str, float]:
    mass = float(weights[chosen].sum())
    if mass == 0:
        return {"share": 0.0}
    return {
        "share": round(mass / float(weights.sum()), 4),
        "score": round(float(np.average(scores[chosen], weights=weights[chosen])), 4),
        "relevant": round(float(np.average(labels[chosen], weights=weights[chosen])), 4),
    }
