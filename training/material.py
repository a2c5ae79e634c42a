"""What the projection is trained on: questions, their passages, and what looks like an answer.

Drawn from the training texts, each kind of query as often as it is drawn in a step of the training,
and encoded once by the model that is to be projected. No passage of a held-out article is in it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.base import Floats
from training.batches import LANGUAGE_SHARES, SHARES
from training.first_stage import Bm25
from training.manuals import SOURCE as MANUALS
from training.matching import DOCUMENT_PREFIX, QUERY_PREFIX, PairScorer, SideStates
from training.negatives import is_han
from training.saving import save_arrays
from training.teacher import teacher_vectors
from training.texts import Query, Texts

SEED = 17
LANGUAGES_OF_A_PASSAGE = 4  # of XQuAD: English, Chinese, and others by chance
PASSAGE_TOKENS = 200
TEACHER_CHARACTERS = 1100
QUERY_TOKENS = 128
KIND_SHARES = {**SHARES, (MANUALS, "question"): 5.0, (MANUALS, "cloze"): 3.0}
LEXICAL = ("medquad", "pubmedqa", MANUALS)  # where BM25 is one of the teachers
N_BY_COSINE = 10
N_BY_BM25 = 6


@dataclass(frozen=True, slots=True)
class Kept:
    """Unit token states of many texts, in float16, and their pooled states."""

    tokens: NDArray[np.float16]  # (n_tokens, hidden)
    pooled: NDArray[np.float32]  # (n_texts, hidden)
    ids: NDArray[np.int32]  # (n_tokens,)
    starts: NDArray[np.int64]  # (n_texts + 1,)

    @classmethod
    def of(cls, sides: Sequence[SideStates]) -> Kept:
        """Keeps the states of texts."""
        return cls(
            np.concatenate([side.tokens.astype(np.float16) for side in sides]),
            np.stack([side.pooled for side in sides]),
            np.concatenate([np.array(side.ids, dtype=np.int32) for side in sides]),
            np.cumsum([0, *(len(side.ids) for side in sides)]),
        )

    @classmethod
    def load(cls, path: Path) -> Kept:
        """Reads what was saved."""
        with np.load(path) as file:
            return cls(file["tokens"], file["pooled"], file["ids"], file["starts"])

    def save(self, path: Path) -> None:
        """Writes all of it."""
        save_arrays(path, tokens=self.tokens, pooled=self.pooled, ids=self.ids, starts=self.starts)

    def text(self, number: int) -> slice:
        """Where the tokens of a text stand."""
        return slice(int(self.starts[number]), int(self.starts[number + 1]))


def draw(texts: Texts, n_questions: int, n_translated: int) -> Texts:
    """Some of the queries that are trained on, with their passages alone."""
    chance = random.Random(SEED)
    drawn = Texts()
    pools: dict[tuple[str, str], list[Query]] = {}
    for query in texts.queries:
        if (query.source, query.kind) in KIND_SHARES and not query.is_held_out:
            pools.setdefault((query.source, query.kind), []).append(query)
    total = sum(KIND_SHARES[kind] for kind in pools)
    for kind, pool in pools.items():
        wanted = round(n_questions * KIND_SHARES[kind] / total)
        for query in chance.sample(pool, min(wanted, len(pool))):
            _add(texts, drawn, query, query.passages)
    _add_translated(texts, drawn, n_translated, chance)
    return drawn


def _add_translated(texts: Texts, drawn: Texts, n: int, chance: random.Random) -> None:
    trained_on = [one for one in texts.translated if not one.is_held_out]
    languages_of: dict[str, list[str]] = {}
    for _ in range(n if trained_on else 0):
        one = chance.choice(trained_on)
        if one.work not in languages_of:
            others = [name for name in one.passages if name not in LANGUAGE_SHARES]
            n_others = min(LANGUAGES_OF_A_PASSAGE - len(LANGUAGE_SHARES), len(others))
            first = [name for name in LANGUAGE_SHARES if name in one.passages]
            languages_of[one.work] = [*first, *chance.sample(others, n_others)]
        asked = chance.choice(list(one.queries))
        there = [name for name in languages_of[one.work] if name in one.passages]
        read = chance.choice(there or list(one.passages))
        _add(texts, drawn, texts.queries[one.queries[asked]], (one.passages[read],))


def _add(texts: Texts, drawn: Texts, query: Query, passages: tuple[int, ...]) -> None:
    places = tuple(drawn.place(texts.passages[number]) for number in passages)
    drawn.queries.append(
        Query(query.text, query.source, query.group, query.kind, places, is_held_out=False)
    )


def fingerprint(folder: Path, drawn: Texts) -> str:
    """Of the model and the texts that it encodes."""
    queries = [query.text for query in drawn.queries]
    passages = [passage.text for passage in drawn.passages]
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes())
    digest.update(repr(((QUERY_TOKENS, PASSAGE_TOKENS), queries, passages)).encode())
    return digest.hexdigest()[:16]


def encode(folder: Path, drawn: Texts, work: Path) -> tuple[Kept, Kept]:
    """States of the queries and of the passages by a model folder, computed once."""
    name = fingerprint(folder, drawn)
    paths = [work / "projection" / f"{kind}-{name}.npz" for kind in ("queries", "passages")]
    if not all(path.exists() for path in paths):
        scorer = PairScorer(folder, "float32", work)
        asked = scorer.encode(
            [query.text for query in drawn.queries], QUERY_PREFIX, QUERY_TOKENS, "questions"
        )
        read = scorer.encode(
            [passage.text for passage in drawn.passages],
            DOCUMENT_PREFIX,
            PASSAGE_TOKENS,
            "passages",
        )
        for path, sides in zip(paths, (asked, read), strict=True):
            Kept.of(sides).save(path)
    return Kept.load(paths[0]), Kept.load(paths[1])


class Judges:
    """What is known of a query's passages before training: the answer, the first stage, a teacher.

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
    """The same, passages cut about where the projection's states end."""
    passages = [replace(p, text=p.text[:TEACHER_CHARACTERS]) for p in drawn.passages]
    return Texts(passages, drawn.queries)
