"""Texts of one language's files: what is held out, and what stands against an answer."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from training.batches import SCORED_BY_BM25, Batches
from training.folder import read_scores, read_tokenizer
from training.lookalikes import Lookalikes, write_lookalikes
from training.matching import token_weights
from training.negatives import RankingList, ranking_lists
from training.texts import Texts, read_texts
from training.wordnet import Sense, WordNet

from tamis.engine.location import EMBEDDED_FOLDER

DISEASES = ("asthma", "gout", "measles", "scurvy", "malaria", "rickets", "mumps", "anthrax")
CITIES = ("北京", "上海", "广州", "成都", "西安", "杭州", "南京", "武汉")


def health_rows() -> list[dict[str, str]]:
    """Two questions on each disease; one answer stands in two articles."""
    rows = [
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
    rows.append({**rows[0], "group": "medquad-copy"})
    return rows


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
def wordnet() -> WordNet:
    senses = (
        Sense("noun 1", ("physician", "doctor"), "one who heals", ("a physician came",), "noun 9"),
        Sense("verb 2", ("prevent", "forestall"), "keep from happening", (), ""),
        Sense("noun 3", ("surgeon",), "one who operates", ("the surgeon cut",), "noun 9"),
        Sense("noun 4", ("nurse",), "one who tends the sick", ("a nurse sat by",), "noun 9"),
    )
    of_word: dict[str, list[str]] = {}
    for sense in senses:
        for word in sense.words:
            of_word.setdefault(word, []).append(sense.key)
    return WordNet({sense.key: sense for sense in senses}, of_word)


@pytest.fixture(scope="module")
def texts(data: Path, wordnet: WordNet) -> Texts:
    return read_texts(data, read_tokenizer(EMBEDDED_FOLDER), wordnet)


@pytest.fixture(scope="module")
def lists(texts: Texts) -> list[RankingList]:
    chance = np.random.default_rng(3)
    queries = chance.normal(size=(len(texts.queries), 8)).astype(np.float32)
    return ranking_lists(
        texts, queries, chance.normal(size=(len(texts.passages), 8)).astype(np.float32)
    )


@pytest.fixture(scope="module")
def short(texts: Texts, lists: list[RankingList], wordnet: WordNet) -> Lookalikes:
    weights = token_weights(read_scores(EMBEDDED_FOLDER))
    return write_lookalikes(texts, lists, read_tokenizer(EMBEDDED_FOLDER), weights, wordnet)


def test_some_articles_are_held_out_with_every_copy_of_their_texts(texts: Texts) -> None:
    held_out = {passage.text for passage in texts.passages if passage.is_held_out}

    assert held_out
    assert not any(p.text in held_out for p in texts.passages if not p.is_held_out)
    for query in texts.queries:
        marks = {texts.passages[number].is_held_out for number in query.passages}
        assert marks == {query.is_held_out}


def test_what_stands_against_an_answer_is_no_part_of_it_and_not_held_out(
    texts: Texts, lists: list[RankingList]
) -> None:
    for query, found in zip(texts.queries, lists, strict=True):
        answer, *others = (texts.passages[number] for number in found.passages)
        assert len(others) > 1
        assert not any(passage.work == answer.work for passage in others)
        assert query.is_held_out or not any(passage.is_held_out for passage in others)


def test_bm25_has_the_passage_with_the_query_s_words_first(
    texts: Texts, lists: list[RankingList]
) -> None:
    number = next(n for n, q in enumerate(texts.queries) if q.text == "What prevents gout?")
    found = lists[number]

    assert found.shares[0] == max(found.shares) == 1.0
    assert len(found.shares) == len(found.passages)


def test_a_step_takes_bm25_s_word_where_it_has_one(texts: Texts, lists: list[RankingList]) -> None:
    batches = Batches(texts, lists, Lookalikes(), seed=1)

    tasks = [task for number in range(10) for task in batches.step(number)]

    sources = {texts.queries[task.query].source for task in tasks}
    assert {"medquad", "cmrc2018", "wordnet"} <= sources
    for task in tasks:
        scored = texts.queries[task.query].source in SCORED_BY_BM25
        assert len(task.shares) == (1 + len(task.negatives) if scored else 0)


def test_an_answer_may_give_the_query_s_words_for_synonyms(texts: Texts, short: Lookalikes) -> None:
    tokenizer = read_tokenizer(EMBEDDED_FOLDER)
    answers = {
        tokenizer.decode(short.documents[number])
        for example in short.examples
        if texts.queries[example.query].source == "medquad"
        for number in example.answers
    }

    assert any("forestall" in answer for answer in answers)


def test_a_word_s_meaning_stands_against_its_usages_and_nouns_like_it(
    texts: Texts, short: Lookalikes
) -> None:
    tokenizer = read_tokenizer(EMBEDDED_FOLDER)
    example = next(e for e in short.examples if "physician" in texts.queries[e.query].text)

    answers, others = (
        [tokenizer.decode(short.documents[number]) for number in numbers]
        for numbers in (example.answers, example.others)
    )

    assert answers == ["one who heals"]
    assert {"a physician came", "one who operates", "one who tends the sick"} <= set(others)
