"""Texts of one language's files: what is held out, and what stands against an answer."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from training.data.batches import Batches
from training.data.lookalikes import Lookalikes
from training.data.negatives import RankingList, ranking_lists
from training.data.texts import Texts, read_texts
from training.model.folder import read_tokenizer

from tamis.engine.location import EMBEDDED_FOLDER

DISEASES = ("asthma", "gout", "measles", "scurvy", "malaria", "rickets", "mumps", "anthrax")
CITIES = ("北京", "上海", "广州", "成都", "西安", "杭州", "南京", "武汉")


def health_rows() -> list[dict[str, str]]:
    """Two questions on each disease."""
    return [
        {
            "query": f"What {asked} {disease}?",
            "positive": f"{disease.title()} is {asked} in number {n}. It is known to physicians. "
            f"They treat {disease} at home. Some of them write about it.",
            "group": f"medquad-{disease}",
            "lang": "en",
        }
        for n, disease in enumerate(DISEASES)
        for asked in ("causes", "prevents")
    ]


def city_rows() -> list[dict[str, str]]:
    """A question on each city, with a passage of several sentences."""
    return [
        {
            "query": f"{city}在哪里？",
            "positive": f"{city}是一座城市。它的历史很长，有{n}千年。" + f"很多人住在{city}。" * 20,
            "group": f"cmrc-dev-{city}",
            "lang": "zh",
        }
        for n, city in enumerate(CITIES)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "train").mkdir()
    for name, rows in (("medquad", health_rows()), ("cmrc2018", city_rows())):
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / "train" / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


@pytest.fixture(scope="module")
def texts(data: Path) -> Texts:
    return read_texts(data, read_tokenizer(EMBEDDED_FOLDER))


@pytest.fixture(scope="module")
def lists(texts: Texts) -> list[RankingList]:
    chance = np.random.default_rng(3)
    queries = chance.normal(size=(len(texts.queries), 8)).astype(np.float32)
    return ranking_lists(
        texts, queries, chance.normal(size=(len(texts.passages), 8)).astype(np.float32)
    )


def test_an_article_s_queries_and_passages_are_held_out_together(texts: Texts) -> None:
    marks: dict[str, set[bool]] = {}
    for query in texts.queries:
        marks.setdefault(query.group, set()).add(query.is_held_out)

    assert all(len(found) == 1 for found in marks.values())
    assert {True, False} == set.union(*marks.values())


def test_what_stands_against_an_answer_does_not_answer(
    texts: Texts, lists: list[RankingList]
) -> None:
    for query, found in zip(texts.queries, lists, strict=True):
        answer, *others = (texts.passages[number] for number in found.passages)
        beside = [n for n in found.passages[1:] if n not in query.passages]
        assert answer.group == query.group
        assert len(beside) > 1
        assert not any(texts.passages[number].work == answer.work for number in beside)
        assert not any(passage.text == answer.text for passage in others)


def test_a_step_draws_on_every_file(texts: Texts, lists: list[RankingList]) -> None:
    batches = Batches(texts, lists, Lookalikes(), seed=1)

    tasks = [task for number in range(10) for task in batches.step(number)]

    assert {texts.queries[task.query].source for task in tasks} == {"medquad", "cmrc2018"}
    assert not any(texts.queries[task.query].is_held_out for task in tasks)
