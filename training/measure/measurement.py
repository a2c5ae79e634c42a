"""Reranks the first stage's candidates and scores the order: nDCG@10 and RR@10 on every query."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import RR, nDCG
from scipy.stats import ttest_rel

from training.data.corpora import EvaluationSet, read_evaluation_set
from training.data.first_stage import Run, candidates
from training.measure.matching import COSINE, MAXSIM, PairScorer, logits
from training.model.base import Floats
from training.model.folder import PHRASE_WEIGHT, Head
from training.saving import save_array

NDCG = nDCG @ 10
RECIPROCAL_RANK = RR @ 10


@dataclass(frozen=True, slots=True)
class Candidates:
    """An evaluation set with its first stage; pairs in the run's order."""

    evaluation: EvaluationSet
    run: Run

    def pairs(self) -> list[tuple[str, str]]:
        """Query and document ids of every candidate."""
        return [(query, document) for query, found in self.run.items() for document in found]

    def first(self, n_queries: int) -> Candidates:
        """The same with the first queries only."""
        kept = dict(islice(self.run.items(), n_queries))
        qrels = {query: self.evaluation.qrels[query] for query in kept}
        evaluation = EvaluationSet(
            self.evaluation.name, self.evaluation.queries, self.evaluation.documents, qrels
        )
        return Candidates(evaluation, kept)

    def reranked(self, scores: Floats) -> Run:
        """The run with other scores, given in the order of `pairs`."""
        run: Run = {query: {} for query in self.run}
        for (query, document), score in zip(self.pairs(), scores.tolist(), strict=True):
            run[query][document] = score
        return run


def load_candidates(data: Path, name: str) -> Candidates:
    """Reads a set and runs its first stage."""
    evaluation = read_evaluation_set(data, name)
    return Candidates(evaluation, candidates(evaluation))


def features_path(folder: Path, compute_type: str, candidates_: Candidates, work: Path) -> Path:
    """Where the features of a model are kept: by the model, the pairs and their texts."""
    texts, pairs = candidates_.evaluation, candidates_.pairs()
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes())
    digest.update((folder / "tokenizer.json").read_bytes())
    digest.update(repr(PHRASE_WEIGHT).encode())
    for query, document in pairs:
        part = (query, texts.queries[query], document, texts.documents[document])
        digest.update(repr(part).encode())
    name = f"{candidates_.evaluation.name}-{compute_type}-{digest.hexdigest()[:16]}.npy"
    return work / "features" / name


def cached_features(folder: Path, compute_type: str, candidates_: Candidates, work: Path) -> Floats:
    """(n_pairs, n_features) features of all pairs; computed once for a model and its pairs."""
    path = features_path(folder, compute_type, candidates_, work)
    if path.exists():
        cached: Floats = np.load(path)
        return cached
    features = pair_features(PairScorer(folder, compute_type, work), candidates_)
    save_array(path, features)
    return features


def pair_features(scorer: PairScorer, candidates_: Candidates) -> Floats:
    """Features of all pairs, in the order of `pairs`, (n_pairs, n_features)."""
    evaluation = candidates_.evaluation
    queries = {query: i for i, query in enumerate(candidates_.run)}
    documents = {document: i for i, document in enumerate(evaluation.documents)}
    return scorer.features(
        [evaluation.queries[query] for query in queries],
        list(evaluation.documents.values()),
        [(queries[query], documents[document]) for query, document in candidates_.pairs()],
        evaluation.name,
    )


def figures(candidates_: Candidates, scores: Floats | None = None) -> dict[str, float]:
    """nDCG@10 and RR@10 over the set's queries; without scores, those of the first stage."""
    run = candidates_.run if scores is None else candidates_.reranked(scores)
    found = ir_measures.calc_aggregate([NDCG, RECIPROCAL_RANK], candidates_.evaluation.qrels, run)
    return {str(measure): round(float(value), 4) for measure, value in found.items()}


def ndcg_of_each_query(candidates_: Candidates, scores: Floats | None = None) -> Floats:
    """nDCG@10 query by query, in the run's order; a query without results counts 0."""
    run = candidates_.run if scores is None else candidates_.reranked(scores)
    values = {
        metric.query_id: metric.value
        for metric in ir_measures.iter_calc([NDCG], candidates_.evaluation.qrels, run)
    }
    return np.array([values.get(query, 0.0) for query in candidates_.run], dtype=np.float32)


def variants(untrained: Floats, trained: Floats, head: Head) -> dict[str, Floats | None]:
    """Scores of everything that is compared, by name; None: the first stage's own."""
    return {
        "bm25": None,
        "pooled_cosine": untrained[:, COSINE],
        "untrained_maxsim": untrained[:, MAXSIM],
        "untrained_same_head": logits(untrained, head),
        "maxsim": trained[:, MAXSIM],
        "shipped": logits(trained, head),
    }


def p_value(ours: Floats, theirs: Floats) -> float:
    """Paired t-test over queries."""
    return round(float(ttest_rel(ours, theirs).pvalue), 7)
