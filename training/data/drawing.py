"""Which questions the projection is learned from: some of the training texts, with their passages.

Each kind of query as often as it is drawn in a step of the training; none of a held-out article.
"""

from __future__ import annotations

import random

from training.data.batches import LANGUAGE_SHARES, SHARES
from training.data.manuals import SOURCE as MANUALS
from training.data.texts import Query, Texts

SEED = 17
LANGUAGES_OF_A_PASSAGE = 4  # of XQuAD: English, Chinese, and others by chance
KIND_SHARES = {**SHARES, (MANUALS, "question"): 5.0, (MANUALS, "cloze"): 3.0}


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
