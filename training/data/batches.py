"""What one training step sees, drawn with a seed: the same on every run, from any step on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from training.data.lookalikes import Lookalikes
from training.data.negatives import RankingList
from training.data.texts import Texts, Translated

# How often a kind of query is drawn among those of one language's texts.
SHARES = {
    ("cmrc2018", "question"): 4.0,
    ("drcd", "question"): 4.0,
    ("jsquad", "question"): 3.0,
    ("medquad", "question"): 6.0,
    ("pubmedqa", "question"): 3.0,
    ("medquad", "title"): 1.5,
    ("drcd", "title"): 0.7,
    ("cmrc2018", "title"): 0.7,
    ("jsquad", "title"): 0.6,
    ("pubmedqa", "cloze"): 2.5,
    ("medquad", "cloze"): 1.5,
    ("drcd", "cloze"): 1.0,
    ("cmrc2018", "cloze"): 1.0,
    ("jsquad", "cloze"): 0.7,
}
# English and Chinese are drawn three times as often as each other language of XQuAD.
LANGUAGE_SHARES = {"en": 3.0, "zh": 3.0}
N_LONG = 12  # queries with passages of their own language's files
N_TRANSLATED = 6  # queries of XQuAD, mostly with a passage in another language
N_SHORT = 8  # queries with short documents
N_NEGATIVES = 2
N_SHORT_NEGATIVES = 3
# A negative that the base ranks higher is drawn more often: exp(40 times the cosine's lead).
SHARPNESS = 40.0
LEAST_SHARE = 0.02

Document = tuple[str, int]  # "passage" or "short", and its number


@dataclass(frozen=True, slots=True)
class Task:
    """One query of a step: its answer, its own negatives, and the work that answers it."""

    query: int
    answer: Document
    negatives: tuple[Document, ...]
    work: str


class Batches:
    """Draws steps from the queries that are trained on, or from those that are held out."""

    def __init__(
        self,
        texts: Texts,
        lists: Sequence[RankingList],
        short: Lookalikes,
        *,
        seed: int,
        held_out: bool = False,
    ) -> None:
        self._texts = texts
        self._lists = lists
        self._short = short
        self._seed = seed
        self._pools: dict[tuple[str, str], list[int]] = {}
        for number, query in enumerate(texts.queries):
            kind = (query.source, query.kind)
            if kind in SHARES and query.is_held_out == held_out and len(lists[number].passages) > 1:
                self._pools.setdefault(kind, []).append(number)
        self._kinds = list(self._pools)
        self._translated = [one for one in texts.translated if one.is_held_out == held_out]
        self._of_article: dict[str, list[Translated]] = {}
        for one in self._translated:
            self._of_article.setdefault(one.group, []).append(one)

    def step(self, number: int) -> list[Task]:
        """The tasks of one step."""
        chance = random.Random(f"{self._seed} {number}")
        tasks = [self._long(chance) for _ in range(N_LONG if self._kinds else 0)]
        tasks += [self._across(chance) for _ in range(N_TRANSLATED if self._translated else 0)]
        if self._short.examples:
            tasks += [self._with_lookalikes(chance) for _ in range(N_SHORT)]
        return tasks

    def _long(self, chance: random.Random) -> Task:
        (kind,) = chance.choices(self._kinds, [SHARES[kind] for kind in self._kinds])
        query = chance.choice(self._pools[kind])
        found = self._lists[query]
        leads = [min(0.5, cosine - found.cosines[0]) for cosine in found.cosines[1:]]
        weights = [math.exp(SHARPNESS * lead) + LEAST_SHARE for lead in leads]
        drawn = dict.fromkeys(chance.choices(found.passages[1:], weights, k=3 * N_NEGATIVES))
        return self._task(query, found.passages[0], list(drawn)[:N_NEGATIVES])

    def _across(self, chance: random.Random) -> Task:
        one = chance.choice(self._translated)
        languages = list(one.queries)
        shares = [LANGUAGE_SHARES.get(language, 1.0) for language in languages]
        asked, read = chance.choices(languages, shares, k=2)
        negatives: list[int] = []
        for _ in range(4 * N_NEGATIVES):
            other = chance.choice(self._of_article[one.group])
            if other.work == one.work:
                other = chance.choice(self._translated)
            (language,) = chance.choices([asked, read, chance.choice(languages)], [5, 3, 2])
            if other.work != one.work and language in other.passages:
                negatives.append(other.passages[language])
        negatives = list(dict.fromkeys(negatives))[:N_NEGATIVES]
        return self._task(one.queries[asked], one.passages[read], negatives)

    def _with_lookalikes(self, chance: random.Random) -> Task:
        example = chance.choice(self._short.examples)
        answer = ("short", chance.choice(example.answers))
        drawn = chance.sample(example.others, min(N_SHORT_NEGATIVES, len(example.others)))
        place = self._lists[example.query].passages[0]
        return Task(
            example.query,
            answer,
            tuple(("short", number) for number in drawn),
            self._texts.passages[place].work,
        )

    def _task(self, query: int, answer: int, negatives: list[int]) -> Task:
        work = self._texts.passages[answer].work
        return Task(
            query, ("passage", answer), tuple(("passage", number) for number in negatives), work
        )
