"""Ranking lists made from rows that were kept from the training, to fit the logit on.

A list is one question, its passage, and negatives from the same pool: the best of BM25, passages
of the same article, and random ones. Cross-lingual lists ask in one language and rank passages
in another; their BM25 negatives are found with the question's translation.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from training.data.corpora import XQUAD_LANGUAGES, EvaluationSet, Row, read_training_rows
from training.data.first_stage import HAN_LANGUAGES, Bm25, Run
from training.data.texts import MONOLINGUAL_FILES, is_held_out
from training.measure.measurement import Candidates

SEED = 7
N_LEXICAL = 8
N_SAME_ARTICLE = 3
N_RANDOM = 8
POOL_PASSAGES = 160
XQUAD_PASSAGES = 60
LISTS_PER_FILE = 80
LISTS_PER_XQUAD_LANGUAGE = 30
LISTS_PER_LANGUAGE_PAIR = 20


# What share of all use is taken to be of a kind: questions over one language's texts, XQuAD in
# one language, XQuAD across two.
FAMILY_SHARES = {"files": 0.5, "xquad": 0.3, "xquad across": 0.2}


@dataclass(frozen=True, slots=True)
class PracticeList:
    """One question with its candidates; `kinds` says of each why it is there."""

    source: str
    group: str
    query: str
    documents: list[str]
    kinds: list[str]


def family(source: str) -> str:
    """The family of a source: `xquad-zh-en` is across, `xquad-zh` is not, all else is a file."""
    if not source.startswith("xquad"):
        return "files"
    return "xquad across" if source.count("-") > 1 else "xquad"


def source_shares(sources: set[str]) -> dict[str, float]:
    """Each source's share: its family's, in equal parts."""
    sizes = Counter(map(family, sources))
    return {name: FAMILY_SHARES[family(name)] / sizes[family(name)] for name in sources}


def language_pairs() -> list[tuple[str, str]]:
    """(question's language, passage's language): each with English, each with Chinese."""
    others = [name for name in XQUAD_LANGUAGES if name not in ("en", "zh")]
    pairs = [("zh", "en"), ("en", "zh")]
    for name in others:
        pairs += [(name, "en"), ("en", name), ("zh", name)]
    return pairs


def practice_lists(data: Path) -> list[PracticeList]:
    """Builds all lists, seeded."""
    chance = random.Random(SEED)
    lists: list[PracticeList] = []
    for name in MONOLINGUAL_FILES:
        rows = _pool(_held_out_rows(data, name), POOL_PASSAGES, chance)
        lists += _lists(name, rows, rows, LISTS_PER_FILE, chance)
    return lists + _xquad_lists(data, chance)


def _xquad_lists(data: Path, chance: random.Random) -> list[PracticeList]:
    rows = {name: _held_out_rows(data, f"xquad-{name}") for name in XQUAD_LANGUAGES}
    kept = {row.id for row in _pool(rows["en"], XQUAD_PASSAGES, chance)}
    rows = {name: [row for row in found if row.id in kept] for name, found in rows.items()}
    lists: list[PracticeList] = []
    for name, found in rows.items():
        lists += _lists(f"xquad-{name}", found, found, LISTS_PER_XQUAD_LANGUAGE, chance)
    for asked, read in language_pairs():
        source = f"xquad-{asked}-{read}"
        lists += _lists(source, rows[asked], rows[read], LISTS_PER_LANGUAGE_PAIR, chance)
    return lists


def _held_out_rows(data: Path, name: str) -> list[Row]:
    return [row for row in read_training_rows(data, name) if is_held_out(name, row)]


def _pool(rows: list[Row], n_passages: int, chance: random.Random) -> list[Row]:
    """Rows of whole articles, drawn until there are enough passages (single ones without)."""
    groups = list(dict.fromkeys(row.group for row in rows))
    if len(groups) == 1:
        return chance.sample(rows, min(n_passages, len(rows)))
    chance.shuffle(groups)
    by_group: dict[str, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row)
    kept: list[Row] = []
    passages: set[str] = set()
    for group in groups:
        if len(passages) >= n_passages:
            break
        new = {row.positive for row in by_group[group]}
        if len(passages) + len(new) <= n_passages + 10:
            passages |= new
            kept += by_group[group]
    return kept


def _lists(
    source: str, asked: list[Row], read: list[Row], n_lists: int, chance: random.Random
) -> list[PracticeList]:
    """Lists of questions from `asked` over passages of `read`; rows are joined by id."""
    passages = list(dict.fromkeys(row.positive for row in read))
    index = Bm25(passages, han=read[0].language in HAN_LANGUAGES)
    by_id = {row.id: row for row in read}
    shared = [row for row in asked if row.id in by_id]
    return [
        _one_list(source, row, by_id[row.id], (passages, index, read), chance)
        for row in chance.sample(shared, min(n_lists, len(shared)))
    ]


def _one_list(
    source: str,
    asked: Row,
    answer: Row,
    pool: tuple[list[str], Bm25, list[Row]],
    chance: random.Random,
) -> PracticeList:
    passages, index, rows = pool
    scores = index.scores(answer.query)
    lexical = [passages[i] for i in (-scores).argsort(kind="stable")[: N_LEXICAL + 1].tolist()]
    same = list(dict.fromkeys(row.positive for row in rows if row.group == answer.group))
    same = chance.sample(same, min(N_SAME_ARTICLE, len(same)))
    kinds: dict[str, str] = {answer.positive: "positive"}
    for kind, found in (
        ("lexical", lexical),
        ("article", same if len({row.group for row in rows}) > 1 else []),
        ("random", chance.sample(passages, min(N_RANDOM, len(passages)))),
    ):
        for passage in found:
            kinds.setdefault(passage, kind)
    return PracticeList(source, answer.group, asked.query, list(kinds), list(kinds.values()))


def as_candidates(lists: list[PracticeList]) -> Candidates:
    """The lists as one evaluation set, so that it is measured and cached like the others.

    Query ids are the list's numbers, document ids are positions in the joined pool.
    """
    place: dict[str, str] = {}
    for practice in lists:
        for document in practice.documents:
            place.setdefault(document, str(len(place)))
    run: Run = {}
    qrels: dict[str, dict[str, int]] = {}
    for number, practice in enumerate(lists):
        ids = [place[document] for document in practice.documents]
        run[str(number)] = {document: -float(i) for i, document in enumerate(ids)}
        qrels[str(number)] = {ids[0]: 1}
    queries = {str(number): practice.query for number, practice in enumerate(lists)}
    documents = {document: text for text, document in place.items()}
    return Candidates(EvaluationSet("practice", queries, documents, qrels), run)
