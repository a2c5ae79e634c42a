"""Training rows -> passages and questions, and which articles are held out of the training.

Long passages are cut at sentence ends, so that passages of many lengths are seen. Besides the rows'
own questions there are two other kinds of query: titles (as in entity search), and sentences taken
out of a passage that is then to be found (an inverse cloze task, Lee et al., arXiv:1906.00300),
which are claims rather than questions.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from training.data.corpora import XQUAD_LANGUAGES, Row, read_training_rows
from training.data.manuals import SOURCE as MANUALS

SEED = 11
MONOLINGUAL_FILES = ("cmrc2018", "drcd", "jsquad", "medquad", "pubmedqa")

# One article in 4 or 12 is held out: of XQuAD for the figures across languages, of the others for
# the calibration and its error.
HELD_OUT_OF_XQUAD = 4
HELD_OUT_ELSEWHERE = 12

# Health answers are three quarters of all text, so their number is limited; articles with more
# questions come first.
MEDQUAD_PASSAGES = 5500

PASSAGE_TOKENS = {
    "cmrc2018": 352,
    "drcd": 352,
    "jsquad": 352,
    "medquad": 260,
    "pubmedqa": 352,
    MANUALS: 352,
}
WITHOUT_TITLES = ("pubmedqa", MANUALS)
SHORT_MEDQUAD_TOKENS = 130
PART_TOKENS = 170
XQUAD_TOKENS = 320
CLOZE_TOKENS = 260

_SENTENCE_END = re.compile(r"(?<=[。！？!?])|(?<=[.])\s+|\n+")
_ARTICLE = re.compile(r"^(medquad|(cmrc|drcd|jsquad)-[a-z]+)-")
_CJK = re.compile(r"[぀-鿿]")


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to be ranked.

    Attributes:
        group: The article it is from.
        work: What its translations and cuts have in common: they do not serve as each other's
            negatives.
        max_tokens: Where it is cut, its start, prefix and end tokens counted.
    """

    text: str
    source: str
    group: str
    work: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Query:
    """A query and the passages that may answer it: one, or the parts of one."""

    text: str
    source: str
    group: str
    kind: str  # question, title or cloze
    passages: tuple[int, ...]
    is_held_out: bool


@dataclass(frozen=True, slots=True)
class Translated:
    """One question of XQuAD: its query and its passage by language."""

    queries: dict[str, int]
    passages: dict[str, int]
    group: str
    work: str
    is_held_out: bool


@dataclass(slots=True)
class Texts:
    """All that is trained on, by number."""

    passages: list[Passage] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    translated: list[Translated] = field(default_factory=list)
    _places: dict[Passage, int] = field(default_factory=dict)

    def place(self, passage: Passage) -> int:
        """The number of a passage, equal ones counted once."""
        if passage not in self._places:
            self._places[passage] = len(self.passages)
            self.passages.append(passage)
        return self._places[passage]


def read_texts(data: Path, tokenizer: Tokenizer, manuals: Sequence[Row] = ()) -> Texts:
    """Reads every training file there is below `data`; and technical English, if wanted."""
    texts = Texts()
    chance = random.Random(SEED)
    for source in MONOLINGUAL_FILES:
        rows = _rows(data, source)
        if source == "medquad":
            rows = _articles_with_several_questions(rows, chance)
        _add_rows(texts, source, rows, tokenizer, chance)
    _add_rows(texts, MANUALS, manuals, tokenizer, chance)
    _add_xquad(texts, data)
    return texts


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence, in characters."""
    at = 0
    for part in _SENTENCE_END.split(text):
        if part and part.strip():
            start = text.find(part, at)
            at = start + len(part)
            yield start, at


def is_held_out(source: str, row: Row) -> bool:
    """Whether a row is kept from the training: with its article, in all languages alike."""
    if source.startswith("xquad"):
        return is_one_in(HELD_OUT_OF_XQUAD, row.group.removeprefix("xquad-"))
    unit = row.id if source == "pubmedqa" else row.group  # whose rows are one group
    return is_one_in(HELD_OUT_ELSEWHERE, unit)


def is_one_in(n: int, name: str) -> bool:
    """Whether a name belongs to the one part in n that is chosen; the same on every run."""
    return zlib.crc32(name.encode()) % n == 0


def _rows(data: Path, name: str) -> list[Row]:
    exists = (data / "train" / f"{name}.jsonl.gz").exists()
    return read_training_rows(data, name) if exists else []


def _articles_with_several_questions(rows: list[Row], chance: random.Random) -> list[Row]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.group] = counts.get(row.group, 0) + 1
    groups = list(counts)
    chance.shuffle(groups)
    groups.sort(key=lambda group: -min(counts[group], 3))
    kept: set[str] = set()
    n_rows = 0
    for group in groups:
        if n_rows > MEDQUAD_PASSAGES:
            break
        kept.add(group)
        n_rows += counts[group]
    return [row for row in rows if row.group in kept]


def _add_rows(
    texts: Texts, source: str, rows: Sequence[Row], tokenizer: Tokenizer, chance: random.Random
) -> None:
    by_passage: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_passage.setdefault((row.positive, row.group), []).append(row)
    for (text, group), asked in by_passage.items():
        kept_out = is_held_out(source, asked[0])
        parts = _parts(text, source, tokenizer)
        limit = _limit(text, source)
        places = tuple(texts.place(Passage(p, source, group, text, limit)) for p in parts)
        for row in asked:
            texts.queries.append(Query(row.query, source, group, "question", places, kept_out))
        title = _ARTICLE.sub("", group)
        if source not in WITHOUT_TITLES and is_one_in(4, text + "title"):
            texts.queries.append(Query(title, source, group, "title", places[:1], kept_out))
        if is_one_in(5 if source == "medquad" else 2, text + "cloze"):
            _add_cloze(texts, Passage(text, source, group, text, CLOZE_TOKENS), kept_out, chance)


def _limit(text: str, source: str) -> int:
    if source == "medquad" and is_one_in(2, text):
        return SHORT_MEDQUAD_TOKENS
    return PASSAGE_TOKENS[source]


def _parts(text: str, source: str, tokenizer: Tokenizer) -> list[str]:
    """Half of the long Chinese passages are cut into parts at sentence ends."""
    if source not in ("cmrc2018", "drcd") or not is_one_in(2, text):
        return [text]
    found = [text[start:end] for start, end in sentences(text)]
    lengths = [len(e.ids) for e in tokenizer.encode_batch(found, add_special_tokens=False)]
    parts = [""]
    n_tokens = 0
    for sentence, length in zip(found, lengths, strict=True):
        if parts[-1] and n_tokens + length > PART_TOKENS:
            parts.append("")
            n_tokens = 0
        space = "" if not parts[-1] or _CJK.search(sentence) else " "
        parts[-1] += space + sentence
        n_tokens += length
    return [part for part in parts if part] or [text]


def _add_cloze(texts: Texts, whole: Passage, kept_out: bool, chance: random.Random) -> None:  # noqa: FBT001 - as the row has it
    """A sentence of a passage as the query; nine times in ten it is taken out of the passage."""
    found = [whole.text[start:end].strip() for start, end in sentences(whole.text)]
    found = [sentence for sentence in found if 20 <= len(sentence) <= 300]
    if len(found) < 4:
        return
    query = chance.choice(found[1:])
    rest = whole.text.replace(query, "", 1) if chance.random() < 0.9 else whole.text
    place = texts.place(Passage(rest, whole.source, whole.group, whole.work, whole.max_tokens))
    texts.queries.append(Query(query, whole.source, whole.group, "cloze", (place,), kept_out))


def _add_xquad(texts: Texts, data: Path) -> None:
    by_id: dict[str, dict[str, Row]] = {}
    for language in XQUAD_LANGUAGES:
        for row in _rows(data, f"xquad-{language}"):
            by_id.setdefault(row.id, {})[language] = row
    for rows in by_id.values():
        if len(rows) < 2:
            continue
        one = rows.get("en") or next(iter(rows.values()))
        group, work = one.group, f"{one.group}|{one.positive}"
        kept_out = is_held_out("xquad", one)
        passages = {
            language: texts.place(
                Passage(row.positive, f"xquad-{language}", group, work, XQUAD_TOKENS)
            )
            for language, row in rows.items()
        }
        queries: dict[str, int] = {}
        for language, row in rows.items():
            queries[language] = len(texts.queries)
            place = (passages[language],)
            source = f"xquad-{language}"
            texts.queries.append(Query(row.query, source, group, "question", place, kept_out))
        texts.translated.append(Translated(queries, passages, group, work, kept_out))
