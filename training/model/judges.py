"""What is known of a question's passages before the projection is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.data.first_stage import Bm25
from training.data.manuals import SOURCE as MANUALS
from training.data.negatives import is_han
from training.data.texts import Query, Texts
from training.model.base import Floats
from training.model.kept import Kept
from training.model.teacher import teacher_vectors

LEXICAL = ("medquad", "pubmedqa", MANUALS)  # where BM25 is one of the judges
N_BY_COSINE = 10
N_BY_BM25 = 6
TEACHER_CHARACTERS = 1100  # about where the passages' states end


class Judges:
    """The answer, passages that look like it, BM25 and the teacher.

    Attributes:
        answers: The passage that answers each query: of the parts of one, the nearest.
        lookalikes: Passages of the same source that look like it, by query.

    Args:
        work: Where the teacher is kept; None is without one.
    """

    def __init__(self, drawn: Texts, queries: Kept, passages: Kept, work: Path | None) -> None:
        self._texts = drawn
        self._vectors = None if work is None else teacher_vectors(_cut(drawn), work)
        places: dict[str, list[int]] = {}
        for number, passage in enumerate(drawn.passages):
            if passages.starts[number] < passages.starts[number + 1]:
                places.setdefault(passage.source, []).append(number)
        self._places = places
        self._rank = {n: rank for found in places.values() for rank, n in enumerate(found)}
        self._bm25 = {
            source: Bm25([drawn.passages[n].text for n in found], han=is_han(source))
            for source, found in places.items()
            if not source.startswith("xquad")
        }
        self._of_query: dict[int, Floats] = {}
        answered: dict[str, set[str]] = {}
        for query in drawn.queries:
            works = {drawn.passages[number].work for number in query.passages}
            answered.setdefault(query.text, set()).update(works)
        self.answers: list[int] = []
        self.lookalikes: list[list[int]] = []
        for number, query in enumerate(drawn.queries):
            vector = queries.pooled[number]
            own = list(query.passages)
            answer = own[int((passages.pooled[own] @ vector).argmax())]
            found = self._nearest(drawn.passages[answer].source, number, vector, passages)
            self.answers.append(answer)
            self.lookalikes.append(
                [n for n in found if self._may_stand(n, query, answered[query.text])]
            )

    def bm25(self, query: int, passages: Sequence[int]) -> Floats:
        """BM25's scores over the best of these, 0 where it has no say, (n_passages,)."""
        source = self._texts.passages[passages[0]].source
        if source not in LEXICAL:
            return np.zeros(len(passages), dtype=np.float32)
        scores = self._lexical(source, query)[[self._rank[n] for n in passages]]
        return np.asarray(scores / max(1e-6, float(scores.max())), dtype=np.float32)

    def teacher(self, queries: Sequence[int], passages: Sequence[int]) -> Floats | None:
        """The teacher's cosines (n_queries, n_passages); None where it does not read all texts."""
        if self._vectors is None:
            return None
        asked, read = self._vectors[0][list(queries)], self._vectors[1][list(passages)]
        if not (asked.any(axis=1).all() and read.any(axis=1).all()):
            return None
        cosines: Floats = asked @ read.T
        return cosines

    def _nearest(self, source: str, query: int, vector: Floats, passages: Kept) -> list[int]:
        places = np.array(self._places[source])
        found = _best(passages.pooled[places] @ vector, N_BY_COSINE)
        if source in self._bm25:
            found += _best(self._lexical(source, query), N_BY_BM25)
        return [int(places[rank]) for rank in dict.fromkeys(found)]

    def _lexical(self, source: str, query: int) -> Floats:
        if query not in self._of_query:
            self._of_query[query] = self._bm25[source].scores(self._texts.queries[query].text)
        return self._of_query[query]

    def _may_stand(self, number: int, query: Query, answered: set[str]) -> bool:
        passage = self._texts.passages[number]
        if query.kind == "title" and passage.group == query.group:
            return False
        return passage.work not in answered


def _best(scores: Floats, n: int) -> list[int]:
    found: list[int] = np.argsort(-scores, kind="stable")[:n].tolist()
    return found


def _cut(drawn: Texts) -> Texts:
    """The same with passages cut for the teacher."""
    passages = [replace(p, text=p.text[:TEACHER_CHARACTERS]) for p in drawn.passages]
    return Texts(passages, drawn.queries)
