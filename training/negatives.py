"""Candidates that look like answers, for every query: found once, with the untrained base.

By BM25, by the base's pooled cosine, of the same article.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from training.base import Floats
from training.corpora import TRAINING_FILES
from training.first_stage import BY_CHARACTER, Bm25
from training.texts import Query, Texts

SEED = 5
N_BY_COSINE = 12
N_BY_BM25 = 8
N_SAME_ARTICLE = 6
N_CANDIDATES = 18


@dataclass(frozen=True, slots=True)
class RankingList:
    """A query's answer, first, and what looks like it.

    Attributes:
        passages: Their numbers.
        cosines: The base's, of each.
        shares: Of BM25's score of the best of its source, for each; empty for XQuAD's.
    """

    passages: tuple[int, ...]
    cosines: tuple[float, ...]
    shares: tuple[float, ...]


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
        shares: list[float] = []
        if query.source in pools:
            found, shares = pools[query.source].candidates(
                query, vector, found[0], answered[query.text], chance
            )
        cosines = (passages[found] @ vector).tolist()
        lists.append(RankingList(tuple(found), tuple(cosines), tuple(shares)))
    return lists


def is_by_character(source: str) -> bool:
    """Whether BM25 takes a source's texts by character."""
    return TRAINING_FILES.get(source) in BY_CHARACTER


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
        self._bm25 = Bm25(
            [texts.passages[n].text for n in self._places], by_character=is_by_character(source)
        )
        self._number = {place: number for number, place in enumerate(self._places)}
        self._by_article: dict[str, list[int]] = {}
        for number in self._places:
            self._by_article.setdefault(texts.passages[number].group, []).append(number)

    def candidates(
        self, query: Query, vector: Floats, answer: int, answered: set[str], chance: random.Random
    ) -> tuple[list[int], list[float]]:
        """The answer and what looks like one; and BM25's score of each beside the best one's."""
        scores = self._bm25.scores(query.text)
        best = max(float(scores.max()), 1e-6)
        article = self._by_article[query.group] if len(self._by_article) > 1 else []
        found = [
            *self._best(self._vectors @ vector, N_BY_COSINE),
            *self._best(scores, N_BY_BM25),
            *chance.sample(article, min(N_SAME_ARTICLE, len(article))),
        ]
        chance.shuffle(found)
        others = [n for n in dict.fromkeys(found) if self._may_stand(n, query, answered)]
        chosen = [answer, *others[:N_CANDIDATES]]
        return chosen, [float(scores[self._number[place]]) / best for place in chosen]

    def _best(self, scores: Floats, n: int) -> list[int]:
        return [self._places[i] for i in np.argsort(-scores, kind="stable")[:n].tolist()]

    def _may_stand(self, number: int, query: Query, answered: set[str]) -> bool:
        passage = self._texts.passages[number]
        if query.kind == "title" and passage.group == query.group:
            return False
        if passage.is_held_out and not query.is_held_out:
            return False
        return passage.work not in answered
