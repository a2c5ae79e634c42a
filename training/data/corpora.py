"""The relevance data on disk: evaluation sets (BEIR layout) and training rows."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVALUATION_SETS = (
    *("scifact", "cranfield", "noveleval", "rgb-zh-int", "limit-small"),
    *("vaswani", "mixed-en", "mixed-zh"),
)
# Sets whose mean the mixing was chosen by; limit-small is hard by construction and left out.
AIMED_SETS = ("scifact", "cranfield", "noveleval", "rgb-zh-int")
JUDGED_CANDIDATES = ("noveleval", "rgb-zh-int")
CHINESE_SETS = ("rgb-zh-int", "mixed-zh")

XQUAD_LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
TRAINING_FILES = {
    "cmrc2018": "zh",
    "drcd": "zh",
    "jsquad": "ja",
    "medquad": "en",
    "pubmedqa": "en",
    **{f"xquad-{language}": language for language in XQUAD_LANGUAGES},
}


class DataError(ValueError):
    """The data folder lacks something, or a file of it cannot be read."""


def check_data(data: Path) -> None:
    """Looks whether all that a training and its figures need is there.

    Raises:
        DataError: with what is missing.
    """
    wanted = [data / "train" / f"{name}.jsonl.gz" for name in TRAINING_FILES]
    for name in EVALUATION_SETS:
        files = ("corpus.jsonl.gz", "queries.jsonl", "qrels.tsv")
        wanted += [data / "eval" / name / file for file in files]
    missing = [str(path.relative_to(data)) for path in wanted if not path.exists()]
    if missing:
        raise DataError(f"{data} has no {', '.join(missing)}; training/README.md has the layout")


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
    """Reads `data/eval/name`; a document's text is its title and text.

    Raises:
        DataError: a file is missing, or one of its lines is not what it should be.
    """
    folder = data / "eval" / name
    documents = {
        line["_id"]: f"{line.get('title', '')} {line['text']}".strip()
        for line in _json_lines(folder / "corpus.jsonl.gz", "_id", "text")
    }
    queries = {
        line["_id"]: line["text"] for line in _json_lines(folder / "queries.jsonl", "_id", "text")
    }
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    judged = {query: text for query, text in queries.items() if query in qrels}
    return EvaluationSet(name, judged, documents, qrels)


def read_training_rows(data: Path, name: str) -> list[Row]:
    """Reads `data/train/name.jsonl.gz`; a row without an id gets its line number.

    Raises:
        DataError: the file is missing, or one of its lines is not what it should be.
    """
    return [
        Row(
            id=str(line.get("id", number)),
            query=line["query"],
            positive=line["positive"],
            language=str(line.get("lang", TRAINING_FILES[name])),
            group=str(line["group"]),
        )
        for number, line in enumerate(
            _json_lines(data / "train" / f"{name}.jsonl.gz", "query", "positive", "group")
        )
    ]


def _json_lines(path: Path, *keys: str) -> Iterator[dict[str, Any]]:
    """The objects of a file, one a line, each with these keys."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}, is not JSON: {error}") from error
        lacking = [key for key in keys if key not in found]
        if lacking:
            raise DataError(f"{path}, line {number}, has no {', '.join(lacking)}")
        yield found
