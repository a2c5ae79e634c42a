"""What int8 does to rankings: the report of `tamis models calibrate`, on real and random weights.

Usage: python -m benchmarks.int8_report --data FOLDER [--work FOLDER] [--large FOLDER] [--depth N]

The data is a folder in BEIR layout (corpus.jsonl.gz, queries.jsonl, qrels.tsv), the candidates are
the best N of plain BM25. tamis-mini's weights are real; the large model's are random, so that
only its differences mean something: it gets no verdict.
"""

import argparse
import csv
import gzip
import json
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.results_file import save
from tamis.engine.calibration import CalibrationReport, QueryScores, compare
from tamis.engine.device import processor_name
from tamis.engine.loading import load_model
from tamis.engine.pairs import Logits
from tamis.reranker import Reranker
from tamis.settings import DEFAULT_MODEL, DtypeName, ModelSettings

MAX_LENGTH = 512
N_LARGE_QUERIES, N_LARGE_DOCUMENTS = 6, 8
K1, B = 1.2, 0.75  # BM25's usual constants


@dataclass(frozen=True, slots=True)
class Judged:
    """A query with its candidates and their grades (0 where nobody judged one)."""

    query: str
    documents: list[str]
    grades: list[float]


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--large", type=Path, help="the random-weight large model; none: left out")
    parser.add_argument("--depth", type=int, default=10)
    options = parser.parse_args()
    queries = read_judged(options.data, options.depth)
    measured: dict[str, Any] = {"data": options.data.name, "candidates": options.depth}
    report = measure(DEFAULT_MODEL, queries, options.work)
    measured[DEFAULT_MODEL] = msgspec.to_builtins(report) | {"verdict": report.verdict}
    if options.large:
        few = [
            Judged(q.query, q.documents[:N_LARGE_DOCUMENTS], []) for q in queries[:N_LARGE_QUERIES]
        ]
        found = measure(str(options.large), few, options.work)
        measured["xlm-roberta-large, random weights"] = msgspec.to_builtins(found)
    print(json.dumps(measured, indent=2))
    print(save("int8_report", measured))
    return 0


def measure(name: str, queries: list[Judged], work: Path) -> CalibrationReport:
    """int8 against float32 of one model on ctranslate2."""
    float32, int8 = (logits(name, dtype, queries, work) for dtype in ("float32", "int8"))
    scores = [
        QueryScores(reference, found, query.grades or None)
        for reference, found, query in zip(float32, int8, queries, strict=True)
    ]
    return compare(scores, max_length=MAX_LENGTH, processor=processor_name())


def logits(name: str, dtype: DtypeName, queries: list[Judged], work: Path) -> list[Logits]:
    """Logits of each query's candidates."""
    settings = ModelSettings(
        name=name,
        runtime="ctranslate2",
        device="cpu",
        dtype=dtype,
        cache_dir=work,
        max_length=MAX_LENGTH,
    )
    with Reranker(load_model(settings)) as reranker:
        return [reranker.score((q.query, text) for text in q.documents) for q in queries]


def read_judged(folder: Path, depth: int) -> list[Judged]:
    """Each query of a BEIR folder with its best candidates by BM25."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [f"{row.get('title', '')} {row['text']}".strip() for row in rows]
    grades: dict[str, dict[str, float]] = defaultdict(dict)
    with (folder / "qrels.tsv").open(encoding="utf-8") as file:
        for query, document, grade in list(csv.reader(file, delimiter="\t"))[1:]:
            grades[query][document] = max(0.0, float(grade))
    index = Bm25(texts)
    judged: list[Judged] = []
    for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        best = index.best(row["text"], depth)
        found = [grades[row["_id"]].get(rows[i]["_id"], 0.0) for i in best]
        judged.append(Judged(row["text"], [texts[i] for i in best], found))
    return judged


class Bm25:
    """BM25 over lower-cased words, no stemming: a first stage good enough to give candidates."""

    def __init__(self, texts: list[str]) -> None:
        self._postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        counts = [Counter(_words(text)) for text in texts]
        for number, count in enumerate(counts):
            for word, n in count.items():
                self._postings[word].append((number, n))
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        self._norm = K1 * (1 - B + B * lengths / lengths.mean())  # (n_documents,)

    def best(self, query: str, depth: int) -> list[int]:
        """Numbers of the best documents, best first."""
        scores = np.zeros(len(self._norm))
        for word in _words(query):
            postings = self._postings.get(word, [])
            rarity = np.log1p((len(scores) - len(postings) + 0.5) / (len(postings) + 0.5))
            for number, n in postings:
                scores[number] += rarity * n * (K1 + 1) / (n + self._norm[number])
        return [int(i) for i in np.argsort(-scores, kind="stable")[:depth]]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


if __name__ == "__main__":
    sys.exit(main())
