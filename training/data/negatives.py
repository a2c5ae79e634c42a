"""Candidates that look like answers, for every query: found once, with the untrained base.

By BM25, by the base's pooled cosine, of the same article, other parts of the same passage.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.data.first_stage import HAN_LANGUAGES, Bm25
from training.data.texts import Query, Texts
from training.model.base import Floats

SEED = 5
N_BY_COSINE = 12
N_BY_BM25 = 8
N_SAME_ARTICLE = 6
N_OTHER_PARTS = 3
N_CANDIDATES = 18

_LANGUAGES = {"cmrc2018": "zh", "drcd": "zh-Hant", "jsquad": "ja"}


@dataclass(frozen=True, slots=True)
class RankingList:
    """A query's answer, first, and what looks like it; with the base's cosine of each."""

    passages: tuple[int, ...]
    cosines: tuple[float, ...]


def ranking_lists(texts: Texts, queries: Floats, passages: Floats) -> list[RankingList]:
    """One list for each query of one language's texts, in their order.

    XQuAD's queries have their answer alone: their negatives are drawn while training.

    Args:
        texts: What there is.
        queries: Pooled vectors, (n_queries, hidden).
        passages: The same of passages.
    """
    pools = {name: _Pool(texts, name, passages) for name in _sources(texts)}
    answered: dict[str, set[str]] = {}
    for query in texts.queries:
        works = {texts.passages[number].work for number in query.passages}
        answered.setdefault(query.text, set()).update(works)
    chance = random.Random(SEED)
    lists: list[RankingList] = []
    for query, vector in zip(texts.queries, queries, strict=True):
        found = [_answer(query, vector, passages)]
        if query.source in pools:
            found += pools[query.source].negatives(
                query, vector, found[0], answered[query.text], chance
            )
        cosines = (passages[found] @ vector).tolist()
        lists.append(RankingList(tuple(found), tuple(cosines)))
    return lists


def is_han(source: str) -> bool:
    """Whether BM25 takes a source's texts by character."""
    return _LANGUAGES.get(source, source.removeprefix("xquad-")) in HAN_LANGUAGES


def _sources(texts: Texts) -> list[str]:
    names = dict.fromkeys(query.source for query in texts.queries)
    return [name for name in names if not name.startswith("xquad")]


def _answer(query: Query, vector: Floats, passages: Floats) -> int:
    """Of the parts of a passage the one that is nearest to the query."""
    places = list(query.passages)
    return places[int((passages[places] @ vector).argmax())]


class _Pool:
    """The passages of one source."""

    def __init__(self, texts: Texts, source: str, passages: Floats) -> None:
        self._texts = texts
        self._places = [n for n, p in enumerate(texts.passages) if p.source == source]
        self._vectors = passages[self._places]
        self._bm25 = Bm25([texts.passages[n].text for n in self._places], han=is_han(source))
        self._by_article: dict[str, list[int]] = {}
        for number in self._places:
            self._by_article.setdefault(texts.passages[number].group, []).append(number)

    def negatives(
        self, query: Query, vector: Floats, answer: int, answered: set[str], chance: random.Random
    ) -> Iterator[int]:
        parts = [number for number in query.passages if number != answer]
        article = self._by_article[query.group] if len(self._by_article) > 1 else []
        found = [
            *self._best(self._vectors @ vector, N_BY_COSINE),
            *self._best(self._bm25.scores(query.text), N_BY_BM25),
            *chance.sample(article, min(N_SAME_ARTICLE, len(article))),
        ]
        chance.shuffle(found)
        others = [n for n in dict.fromkeys(found) if self._may_stand(n, query, answered)]
        kept = parts[:N_OTHER_PARTS] if query.kind == "question" else []
        yield from kept
        yield from others[:N_CANDIDATES]

    def _best(self, scores: Floats, n: int) -> list[int]:
        return [self._places[i] for i in np.argsort(-scores, kind="stable")[:n].tolist()]

    def _may_stand(self, number: int, query: Query, answered: set[str]) -> bool:
        passage = self._texts.passages[number]
        if query.kind == "title" and passage.group == query.group:
            return False
        return passage.work not in answered
