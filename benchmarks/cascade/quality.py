"""nDCG@10 of cascades between models whose weights are real."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import nDCG
from numpy.typing import NDArray
from training.data.corpora import read_evaluation_set
from training.data.first_stage import candidates

from benchmarks.cascade.stages import DTYPE, FIRST, SECOND, Stage, load_stage
from tamis.cascade import Cascade, merge
from tamis.reranker import Reranker

SETS = ("scifact", "cranfield", "noveleval", "rgb-zh-int")
SEED = 3
KEPT = (0, 5, 10, 20, 30)
"""What the second stage reads; 0 is the first stage alone."""
MARGINS = (0.5, 1.0, 2.0)
"""With 5 kept at least, in the first stage's logits."""
RETRIEVAL = "retrieval"
NDCG = nDCG @ 10
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Query:
    """A query with its candidates, in the order of their ids."""

    id: str
    text: str
    document_ids: list[str]
    documents: list[str]
    bm25: list[float]
    grades: dict[str, int]

    def best_first(self) -> list[str]:
        """The documents in the order of retrieval."""
        order = np.argsort(-np.array(self.bm25), kind="stable")
        return [self.documents[index] for index in order]


@dataclass(frozen=True, slots=True)
class Figures:
    """A cascade on one set of queries.

    Attributes:
        loss: nDCG@10 of the second stage on everything, minus the cascade's.
        loss_interval: Half of the 95% interval of the mean loss, query by query.
        same_top_10: Share of the second stage's own first ten that are the cascade's, too.
        n_kept: Documents that the second stage reads, on average.
    """

    first: str
    keep: int
    margin: float
    ndcg_at_10: float
    loss: float
    loss_interval: float
    same_top_10: float
    n_kept: float


def read_queries(data: Path, name: str, n_queries: int) -> list[Query]:
    """A seeded choice of a set's queries, with BM25's 50 best or the judged candidates."""
    evaluation = read_evaluation_set(data, name)
    run = candidates(evaluation)
    chosen = sorted(run)
    random.Random(SEED).shuffle(chosen)
    found: list[Query] = []
    for query in chosen[:n_queries]:
        ids = sorted(run[query])  # no stage profits from the order
        found.append(
            Query(
                query,
                evaluation.queries[query],
                ids,
                [evaluation.documents[id_] for id_ in ids],
                [run[query][id_] for id_ in ids],
                evaluation.qrels[query],
            )
        )
    return found


def score(name: str, queries: list[Query], work: Path) -> None:
    """Let every stage score every candidate; what is scored already is kept."""
    for stage in (SECOND, *FIRST):
        path = _scores_file(name, stage, work)
        held: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}
        missing = [query for query in queries if query.id not in held]
        if not missing:
            continue
        with Reranker(load_stage(stage, work)) as reranker:
            for query in missing:
                ranked = reranker.rank(query.text, query.documents)
                held[query.id] = [one.logit for one in sorted(ranked, key=lambda r: r.index)]
                path.write_text(json.dumps(held))
        print(f"{name}: {stage.name} has scored {len(missing)} queries", flush=True)


def scored(name: str, queries: list[Query], work: Path) -> list[Query]:
    """Those that every stage has scored."""
    held = [
        json.loads(_scores_file(name, stage, work).read_text()).keys() for stage in (SECOND, *FIRST)
    ]
    return [query for query in queries if all(query.id in ids for ids in held)]


def measure(name: str, queries: list[Query], work: Path) -> list[Figures]:
    """Figures of every cascade between the scored stages."""
    stages = {stage.name: _read_scores(name, stage, queries, work) for stage in FIRST}
    second = _read_scores(name, SECOND, queries, work)
    stages[RETRIEVAL] = [np.array(query.bm25, dtype=np.float32) for query in queries]
    largest = max(len(query.documents) for query in queries)
    return [
        _figures(first, (keep, margin), queries, stages[first], second)
        for first in stages
        for keep, margin in [*((keep, 0.0) for keep in (*KEPT, largest)), *_margins(first)]
    ]


def kept_of(
    keep: int, margin: float, queries: list[Query], firsts: list[Logits]
) -> Iterator[tuple[Query, Logits, NDArray[np.intp]]]:
    """Each query with its first stage's logits and the documents that the second reads."""
    for query, first in zip(queries, firsts, strict=True):
        none = np.empty(0, dtype=np.intp)
        yield query, first, Cascade(keep, margin).select(first) if keep else none


def _figures(
    first: str,
    options: tuple[int, float],
    queries: list[Query],
    firsts: list[Logits],
    seconds: list[Logits],
) -> Figures:
    ours: dict[str, list[int]] = {}
    full: dict[str, list[int]] = {}
    n_kept: list[int] = []
    for (query, logits, kept), second in zip(
        kept_of(*options, queries, firsts), seconds, strict=True
    ):
        order = np.argsort(-logits, kind="stable")
        ours[query.id] = list(merge(logits, kept, second[kept])[1] if len(kept) else order)
        full[query.id] = list(np.argsort(-second, kind="stable"))
        n_kept.append(len(kept))
    ndcg = _ndcg(queries, ours)
    losses = _ndcg(queries, full) - ndcg
    return Figures(
        first=first,
        keep=options[0],
        margin=options[1],
        ndcg_at_10=float(ndcg.mean()),
        loss=float(losses.mean()),
        loss_interval=float(1.96 * losses.std(ddof=1) / np.sqrt(len(losses))),
        same_top_10=float(
            np.mean([len({*ours[q.id][:10]} & {*full[q.id][:10]}) / 10 for q in queries])
        ),
        n_kept=float(np.mean(n_kept)),
    )


def _ndcg(queries: list[Query], orders: dict[str, list[int]]) -> NDArray[np.float64]:
    """nDCG@10 (n_queries,) of orders of candidates."""
    qrels = {query.id: query.grades for query in queries}
    run = {
        query.id: {
            query.document_ids[index]: -float(place) for place, index in enumerate(orders[query.id])
        }
        for query in queries
    }
    found = {one.query_id: one.value for one in ir_measures.iter_calc([NDCG], qrels, run)}
    return np.array([found.get(query.id, 0.0) for query in queries])


def _margins(first: str) -> list[tuple[int, float]]:
    return [] if first == RETRIEVAL else [(5, margin) for margin in MARGINS]


def _scores_file(name: str, stage: Stage, work: Path) -> Path:
    return work / f"scores-{name}-{DTYPE}-{stage.n_layers}-layers-{stage.max_length}-tokens.json"


def _read_scores(name: str, stage: Stage, queries: list[Query], work: Path) -> list[Logits]:
    held = json.loads(_scores_file(name, stage, work).read_text())
    return [np.array(held[query.id], dtype=np.float32) for query in queries]


def to_json(figures: list[Figures]) -> list[dict[str, object]]:
    """For a result file."""
    return [
        {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(one).items()}
        for one in figures
    ]
