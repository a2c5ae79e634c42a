"""How far to go from the base's weights to the trained ones: in a straight line, part of the way.

    python -m training.mixing --data DATA

Weights between the two keep what the base knew of texts of other kinds (WiSE-FT, Wortsman et al.,
arXiv:2109.01903). Which part ranks best is looked at on some queries of the evaluation sets, which
are there to choose by, and on the keyword traps; `Plan.mixing` and the cosine's weights in
`training.folder.UNFITTED` are what was chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from training.base import DEFAULT_WORK, Floats
from training.corpora import EvaluationSet
from training.first_stage import Run
from training.folder import Head, read_scores, read_tokenizer
from training.matching import (
    DOCUMENT_PREFIX,
    QUERY_PREFIX,
    id_sequences,
    logits,
    token_weights,
)
from training.measurement import Candidates, load_candidates, ndcg_of_each_query
from training.saving import RESULTS_FOLDER, save_result
from training.states import Encoder, States
from training.student import Side, Student
from training.train import Plan, new_student, read_encoder
from training.traps import KEYWORD_TRAPS, read_rows

SHARES = (0.0, 0.5, 0.65, 0.75, 1.0)
# (pooled weight, short weight, short tokens) of the head
HEADS = ((0.0, 0.0, 40.0), (0.25, 0.0, 40.0), (0.25, 2.0, 40.0), (0.25, 6.0, 40.0))
N_QUERIES = {"scifact": 60, "cranfield": 60, "noveleval": 21, "rgb-zh-int": 40}
QUERY_TOKENS, DOCUMENT_TOKENS = 96, 320
_AT_ONCE = 1024


def mixed(before: dict[str, Floats], after: dict[str, Floats], share: float) -> dict[str, Floats]:
    """`before + share * (after - before)`; what is new begins at 0."""
    return {
        name: (1 - share) * before.get(name, np.zeros_like(trained)) + share * trained
        for name, trained in after.items()
    }


def mixed_student(folder: Path, plan: Plan, checkpoint: Path, share: float) -> Student:
    """The student part of the way to a checkpoint."""
    student = new_student(folder, plan)
    trained = torch.load(checkpoint, weights_only=True)["student"]
    state = {name: value.lerp(trained[name], share) for name, value in student.state_dict().items()}
    student.load_state_dict(state)
    return student


class Sample:
    """Some queries of a set, their texts below the trained layers."""

    def __init__(self, candidates: Candidates, folder: Path, encoder: Encoder, work: Path) -> None:
        texts, name = candidates.evaluation, candidates.evaluation.name
        tokenizer, weights = read_tokenizer(folder), token_weights(read_scores(folder))
        documents = list(dict.fromkeys(document for _, document in candidates.pairs()))
        asked, n_prefix = id_sequences(
            tokenizer, [texts.queries[q] for q in candidates.run], QUERY_PREFIX, QUERY_TOKENS
        )
        read, _ = id_sequences(
            tokenizer, [texts.documents[d] for d in documents], DOCUMENT_PREFIX, DOCUMENT_TOKENS
        )
        self.candidates = candidates
        self._queries = encoder.states(asked, work=work, label=f"{name} queries")
        self._documents = encoder.states(read, work=work, label=f"{name} documents")
        self._place = {document: number for number, document in enumerate(documents)}
        self._information = [
            torch.from_numpy(np.maximum(weights[ids[1 + n_prefix : -1]], 1e-6)) for ids in asked
        ]

    @torch.no_grad()
    def features(self, student: Student) -> Floats:
        """Features of all pairs, (n_pairs, 3)."""
        queries, documents = (
            _sides(student, states, is_query=is_query)
            for states, is_query in ((self._queries, True), (self._documents, False))
        )
        rows: list[Floats] = []
        for number, found in enumerate(self.candidates.run.values()):
            read = [documents[self._place[document]] for document in found]
            parts = student.match([queries[number]], [self._information[number]], read)
            lengths = torch.tensor([float(len(side.tokens)) for side in read])
            rows.append(torch.stack([*(part[0] for part in parts), lengths], 1).numpy())
        return np.concatenate(rows)


def _sides(student: Student, states: States, *, is_query: bool) -> list[Side]:
    sides: list[Side] = []
    n = len(states.starts) - 1
    for start in range(0, n, _AT_ONCE):
        lower = [states.of(number) for number in range(start, min(n, start + _AT_ONCE))]
        sides += student.encode(lower, is_query=is_query)
    return sides


def trap_candidates() -> Candidates:
    """The keyword traps as a set of queries with two documents each."""
    rows = read_rows(KEYWORD_TRAPS)
    queries = {str(number): row["query"] for number, row in enumerate(rows)}
    documents: dict[str, str] = {}
    run: Run = {}
    for number, row in enumerate(rows):
        documents |= {f"{number} answer": row["answer"], f"{number} trap": row["trap"]}
        run[str(number)] = {f"{number} answer": 1.0, f"{number} trap": 0.0}
    qrels = {number: {f"{number} answer": 1} for number in queries}
    return Candidates(EvaluationSet("traps", queries, documents, qrels), run)


def measure(
    samples: Sequence[Sample], traps: Sample, folder: Path, plan: Plan, checkpoint: Path
) -> dict[str, object]:
    """nDCG@10 on each sample and their mean, and the traps whose answer is first, by share."""
    table: dict[str, object] = {}
    for share in SHARES:
        student = mixed_student(folder, plan, checkpoint, share)
        row: dict[str, object] = {}
        ndcg: list[Floats] = []
        levels: list[Floats] = []
        for sample in samples:
            features = sample.features(student)
            offsets = _offsets(sample.candidates, features)
            found = [
                float(ndcg_of_each_query(sample.candidates, logits(features, head)).mean())
                for head in _heads(offsets)
            ]
            levels.append(offsets)
            row[sample.candidates.evaluation.name] = np.round(found, 4).tolist()
            ndcg.append(np.array(found))
        row["mean"] = np.mean(ndcg, axis=0).round(4).tolist()
        features = traps.features(student)
        heads = _heads(np.mean(levels, axis=0))
        scores = np.stack([logits(features, head) for head in heads]).reshape(len(heads), -1, 2)
        row["levels"] = np.mean(levels, axis=0).round(4).tolist()
        row["traps"] = (scores[..., 0] > scores[..., 1]).sum(axis=1).tolist()
        table[str(share)] = row
        tqdm.write(f"{share} {row}")
    return table


def _heads(offsets: Floats) -> list[Head]:
    return [
        Head(*head, offset=float(offsets[0]), pooled_offset=float(offsets[1])) for head in HEADS
    ]


def _offsets(candidates: Candidates, features: Floats) -> Floats:
    """MaxSim and cosine of what is near an answer, in the mean: of each query's eight best."""
    ends = np.cumsum([len(found) for found in candidates.run.values()])[:-1]
    best = [part[np.argsort(-part[:, 0])[:8], :2] for part in np.split(features, ends)]
    return np.concatenate(best).mean(axis=0)


def main() -> None:
    """Parses the command line, measures, saves."""
    parser = argparse.ArgumentParser(prog="training.mixing", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER)
    options = parser.parse_args()
    work: Path = options.work
    plan, folder = Plan(), work / "mini"
    encoder = read_encoder(folder, plan.first_layer)
    lower = replace(encoder, layers=encoder.layers[: plan.first_layer])
    samples = [
        Sample(load_candidates(options.data, name).first(n), folder, lower, work)
        for name, n in N_QUERIES.items()
    ]
    traps = Sample(trap_candidates(), folder, lower, work)
    table = measure(samples, traps, folder, plan, work / "train" / "checkpoint.pt")
    content = {"queries": N_QUERIES, "heads": HEADS, "shares": table}
    save_result(options.results, "mixing", content)


if __name__ == "__main__":
    main()
