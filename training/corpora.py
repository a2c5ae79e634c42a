"""The relevance data on disk: evaluation sets (BEIR layout) and training rows."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVALUATION_SETS = ("scifact", "cranfield", "noveleval", "rgb-zh-int", "limit-small")
JUDGED_CANDIDATES = ("noveleval", "rgb-zh-int")
CHINESE_SETS = ("rgb-zh-int",)

XQUAD_LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
TRAINING_FILES = {
    "cmrc2018": "zh",
    "drcd": "zh",
    "jsquad": "ja",
    "medquad": "en",
    "pubmedqa": "en",
    **{f"xquad-{language}": language for language in XQUAD_LANGUAGES},
}


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Queries and documents by id, and judged relevance by query and document id."""

    name: str
    queries: dict[str, str]
    documents: dict[str, str]
    qrels: dict[str, dict[str, int]]

    @property
    def is_chinese(self) -> bool:
        """Whether its texts are Chinese."""
        return self.name in CHINESE_SETS


@dataclass(frozen=True, slots=True)
class Row:
    """A question, the passage that answers it, and the article (`group`) the passage is from."""

    id: str
    query: str
    positive: str
    language: str
    group: str


def read_evaluation_set(data: Path, name: str) -> EvaluationSet:
    """Reads `data/eval/name`; a document's text is its title and text."""
    folder = data / "eval" / name
    documents = {
        line["_id"]: f"{line.get('title', '')} {line['text']}".strip()
        for line in _json_lines(folder / "corpus.jsonl.gz")
    }
    queries = {line["_id"]: line["text"] for line in _json_lines(folder / "queries.jsonl")}
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    judged = {query: text for query, text in queries.items() if query in qrels}
    return EvaluationSet(name, judged, documents, qrels)


def read_training_rows(data: Path, name: str) -> list[Row]:
    """Reads `data/train/name.jsonl.gz`; a row without an id gets its line number."""
    return [
        Row(
            id=str(line.get("id", number)),
            query=line["query"],
            positive=line["positive"],
            language=str(line.get("lang", TRAINING_FILES[name])),
            group=str(line["group"]),
        )
        for number, line in enumerate(_json_lines(data / "train" / f"{name}.jsonl.gz"))
    ]


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    yield from (json.loads(line) for line in text.split("\n") if line)
