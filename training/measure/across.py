"""Question in one language, passage in another: XQuAD's held-out articles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.corpora import XQUAD_LANGUAGES, Row, read_training_rows
from training.data.texts import is_held_out
from training.measure.matching import N_FEATURES, PairScorer, logits
from training.model.base import Floats
from training.model.folder import Head

# All languages, but each third question: a ranking of 35 passages needs no more.
EVERY = 3


@dataclass(frozen=True, slots=True)
class Pool:
    """The held-out questions and passages of one language, by the question's id."""

    questions: dict[str, str]
    passages: list[str]
    answers: dict[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Across:
    """What a scorer makes of every question with every passage.

    Attributes:
        features: By language of question and of passages, (n_questions, n_passages, n_features).
        answers: The place of each question's answer, by language of the passages.
    """

    features: dict[tuple[str, str], Floats]
    answers: dict[str, list[int]]


def read_across(scorer: PairScorer, data: Path) -> Across:
    """Reads the held-out rows and scores them: all passages of one language are candidates."""
    pools = {name: _pool(read_training_rows(data, f"xquad-{name}")) for name in XQUAD_LANGUAGES}
    ids = [i for i in pools["en"].questions if all(i in pool.answers for pool in pools.values())]
    ids = ids[::EVERY]
    asked = {
        name: scorer.encode_queries([pool.questions[i] for i in ids], name)
        for name, pool in pools.items()
    }
    features: dict[tuple[str, str], Floats] = {}
    for read, pool in pools.items():
        documents = scorer.encode_documents(pool.passages, read)
        for name, queries in asked.items():
            found = [scorer.match(queries, side) for side in documents]
            features[name, read] = np.stack(found, axis=1)
    return Across(features, {name: [pool.answers[i] for i in ids] for name, pool in pools.items()})


def across_figures(across: Across, head: Head) -> dict[str, object]:
    """nDCG@10 for each pair of languages: the question's, and that of the passages ranked."""
    table: dict[tuple[str, str], float] = {}
    for (name, read), features in across.features.items():
        scores = logits(features.reshape(-1, N_FEATURES), head).reshape(features.shape[:2])
        table[name, read] = float(np.mean(_gains(scores, across.answers[read])))
    n_questions, n_passages = next(iter(across.features.values())).shape[:2]
    same = [value for pair, value in table.items() if pair[0] == pair[1]]
    other = [value for pair, value in table.items() if pair[0] != pair[1]]
    worst = min(table, key=lambda pair: table[pair])
    return {
        "questions": n_questions,
        "passages": n_passages,
        "same_language": round(float(np.mean(same)), 4),
        "across": round(float(np.mean(other)), 4),
        "ratio": round(float(np.mean(other) / np.mean(same)), 4),
        "worst": {"question": worst[0], "passages": worst[1], "nDCG@10": round(table[worst], 4)},
        "nDCG@10": {"-".join(pair): round(value, 4) for pair, value in table.items()},
    }


def _pool(rows: list[Row]) -> Pool:
    rows = [row for row in rows if is_held_out("xquad", row)]
    passages = list(dict.fromkeys(row.positive for row in rows))
    place = {text: number for number, text in enumerate(passages)}
    return Pool(
        {row.id: row.query for row in rows}, passages, {row.id: place[row.positive] for row in rows}
    )


def _gains(scores: Floats, answers: list[int]) -> list[float]:
    """With one relevant passage nDCG@10 is 1 / log2(1 + rank), 0 beyond the tenth."""
    ranks = [1 + int((row > row[place]).sum()) for row, place in zip(scores, answers, strict=True)]
    return [1 / float(np.log2(1 + rank)) if rank <= 10 else 0.0 for rank in ranks]
