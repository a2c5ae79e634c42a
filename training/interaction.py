"""How the similarities of a pair's tokens become one number: ways that were compared.

    python -m training.interaction MODEL --data DATA

Hours; on all queries of the evaluation sets, which are there to choose by, and on the keyword
traps. `training.folder` has what was chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tamis.engine.heads.similarities import in_phrases
from training.across import Across, across_figures, read_across
from training.base import DEFAULT_WORK, Floats
from training.corpora import EVALUATION_SETS
from training.matching import (
    COSINE,
    IN_PHRASES,
    N_FEATURES,
    PairScorer,
    SideStates,
    logits,
    shares_of,
)
from training.measurement import Candidates, load_candidates, ndcg_of_each_query, pair_features
from training.mixing import HEADS
from training.saving import RESULTS_FOLDER, save_result
from training.traps import trap_candidates, traps_passed

Aggregate = Callable[[Floats], Floats]
"""Cosines of a query's tokens and a document's -> one number for each of the query's."""


def best(cosines: Floats) -> Floats:
    """The best, as in ColBERT."""
    found: Floats = cosines.max(axis=1)
    return found


def mean_of_best(n: int) -> Aggregate:
    """The mean of the n best: a word that is there often counts more."""

    def aggregate(cosines: Floats) -> Floats:
        found: Floats = np.sort(cosines, axis=1)[:, -n:].mean(axis=1)
        return found

    return aggregate


def soft_best(sharpness: float) -> Aggregate:
    """log(sum(exp(sharpness * cosine))) / sharpness: the best, and more where there are many."""

    def aggregate(cosines: Floats) -> Floats:
        largest = cosines.max(axis=1, keepdims=True)
        sums = np.exp(sharpness * (cosines - largest)).sum(axis=1)
        found: Floats = largest[:, 0] + np.log(sums) / sharpness
        return found

    return aggregate


def in_phrases_of(weight: float, aggregate: Aggregate = best) -> Aggregate:
    """Averaged with the neighbors' first."""
    return lambda cosines: aggregate(in_phrases(cosines, np.array([0]), weight))


def from_the_start(gain: float, n_tokens: float) -> Aggregate:
    """In phrases, and a token counts the more the nearer to the document's start it is."""

    def aggregate(cosines: Floats) -> Floats:
        places = np.arange(cosines.shape[1])
        return best(in_phrases(cosines, np.array([0]), 0.5) + gain * np.exp(-places / n_tokens))

    return aggregate


WAYS: Mapping[str, Aggregate] = {
    "best": best,
    "mean of 4 best": mean_of_best(4),
    "soft best, 80": soft_best(80),
    "in phrases, 0.1": in_phrases_of(0.1),
    "in phrases, 0.25": in_phrases_of(0.25),
    "in phrases, 0.5": in_phrases_of(0.5),
    "in phrases, 1": in_phrases_of(1.0),
    "in phrases, 0.5, mean of 4 best": in_phrases_of(0.5, mean_of_best(4)),
    "in phrases, 0.5, soft best, 80": in_phrases_of(0.5, soft_best(80)),
    "in phrases, 0.5, soft best, 120": in_phrases_of(0.5, soft_best(120)),
    "in phrases, 0.5, 0.01 more at the start": from_the_start(0.01, 100),
}


class ComparedScorer(PairScorer):
    """Features are each way's number and the pooled cosine."""

    n_features = len(WAYS) + 1

    def match(self, queries: list[SideStates], document: SideStates) -> Floats:
        """Features of several queries with one document, (n_queries, n_ways + 1)."""
        found = np.zeros((len(queries), self.n_features), dtype=np.float32)
        for row, query in zip(found, queries, strict=True):
            row[-1] = query.pooled @ document.pooled
            if query.ids and document.ids:
                cosines = query.tokens @ document.tokens.T
                shares = shares_of(query, self.weights, self.importance)
                row[:-1] = [shares @ aggregate(cosines) for aggregate in WAYS.values()]
        return found


def compare(
    features: Sequence[tuple[Candidates, Floats]], traps: Floats, across: Across
) -> dict[str, object]:
    """nDCG@10 on each set and across languages, and the traps whose answer is first, by way.

    A list has one value for each of `HEADS`.

    Args:
        features: Of each set, by `ComparedScorer`.
        traps: The same of the keyword traps: answer, trap, answer, ...
        across: The same of questions and passages in many languages.
    """
    table: dict[str, object] = {}
    for number, way in enumerate(WAYS):
        row: dict[str, object] = {}
        for candidates, found in features:
            scores = [logits(_as_features(found, number), one) for one in HEADS]
            means = [float(ndcg_of_each_query(candidates, each).mean()) for each in scores]
            row[candidates.evaluation.name] = np.round(means, 4).tolist()
        scores = [logits(_as_features(traps, number), one) for one in HEADS]
        of_way = Across(
            {pair: _as_features(found, number) for pair, found in across.features.items()},
            across.answers,
        )
        told = [across_figures(of_way, one) for one in HEADS]
        row |= {kind: [one[kind] for one in told] for kind in ("same_language", "across")}
        row["traps"] = traps_passed(np.stack(scores))
        table[way] = row
        tqdm.write(f"{way} {row}")
    return table


def _as_features(compared: Floats, way: int) -> Floats:
    """What the head reads, one way standing for MaxSim in phrases."""
    features = np.zeros((*compared.shape[:-1], N_FEATURES), dtype=np.float32)
    features[..., IN_PHRASES] = compared[..., way]
    features[..., COSINE] = compared[..., -1]
    return features


def main() -> None:
    """Parses the command line, measures, saves."""
    parser = argparse.ArgumentParser(prog="training.interaction", description=__doc__)
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/ and train/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER)
    options = parser.parse_args()
    scorer = ComparedScorer(options.model, "float32", options.work)
    across = read_across(scorer, options.data)
    sets = [load_candidates(options.data, name) for name in EVALUATION_SETS]
    features = [(found, pair_features(scorer, found)) for found in sets]
    traps = pair_features(scorer, trap_candidates())
    table = compare(features, traps, across)
    save_result(
        options.results, "interaction", {"heads": [asdict(head) for head in HEADS], "ways": table}
    )


if __name__ == "__main__":
    main()
