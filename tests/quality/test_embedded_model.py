"""What the embedded model has to get right as it is shipped, through tamis itself."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamis import Reranker
from tamis.engine.location import EMBEDDED_FOLDER

FOLDER = Path(__file__).parent
# 17 of 20 each were aimed at. Late interaction is literal: without the cosine for short documents,
# which cost other rankings, few of the English ones are right. What is reached must not get lost.
LEAST_TRAPS = {"en": 1, "zh": 12}
LEAST_ANSWER, MOST_OTHER = 0.8, 0.2


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    """The embedded model."""
    with Reranker() as opened:
        yield opened


def rows(name: str) -> list[dict[str, str]]:
    """Texts of a file beside this one."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_most_answers_stand_above_documents_that_repeat_the_question(
    reranker: Reranker, language: str
) -> None:
    traps = [row for row in rows("keyword_traps") if row["language"] == language]

    first = [reranker.rank(t["query"], [t["trap"], t["answer"]])[0].index for t in traps]

    assert sum(first) >= LEAST_TRAPS[language], [
        trap["query"] for trap, index in zip(traps, first, strict=True) if not index
    ]


def test_obvious_answers_score_high_and_obvious_non_answers_low(reranker: Reranker) -> None:
    pairs = rows("obvious_pairs")
    answers, others = (
        [reranker.rank(row["query"], [row[kind]])[0].score for row in pairs]
        for kind in ("answer", "other")
    )

    assert min(answers) > LEAST_ANSWER
    assert max(others) < MOST_OTHER


def test_the_embedded_model_takes_at_most_fifty_megabytes() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in EMBEDDED_FOLDER.iterdir():
            archive.write(path, path.name)

    assert len(packed.getvalue()) <= 50e6


def test_phrases_rank_better_whichever_set_is_left_out() -> None:
    path = Path(__file__).parents[2] / "training/results/ranking.json"
    sets = json.loads(path.read_text(encoding="utf-8"))["sets"]
    gains = {
        name: found["shipped"]["nDCG@10"] - found["maxsim"]["nDCG@10"]
        for name, found in sets.items()
    }
    means = [(sum(gains.values()) - gain) / (len(gains) - 1) for gain in gains.values()]
    assert len(gains) == 8
    assert min(means) > 0
