"""Chooses which pieces of XLM-R's vocabulary stay, by how often the kept languages need them.

Need is counted on the training texts and on `wordfreq`'s word lists, never on evaluation texts.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import msgpack  # type: ignore[import-untyped]  # ships no types
import numpy as np
import wordfreq
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.corpora import TRAINING_FILES, read_training_rows
from training.model.base import Base
from training.model.tokenizer import METASPACE, SPECIAL_PIECES, build_tokenizer

Counts = NDArray[np.float64]

# What share of all text each language is taken to have. Chinese and English come first; the
# others are the languages of the training rows, those with the longest words a little higher.
LANGUAGE_WEIGHTS = {
    "zh": 0.20,
    "zh-Hant": 0.05,
    "en": 0.20,
    "ru": 0.08,
    "de": 0.07,
    "ja": 0.07,
    "es": 0.05,
    **dict.fromkeys(("ar", "el", "hi", "ro", "th", "tr", "vi"), 0.04),
}
WRITTEN_WITHOUT_SPACES = ("zh", "ja", "th")

# wordfreq folds case: this share of a word's occurrences is taken to be capitalized, this in
# capitals (half of all German words are nouns or begin a sentence).
CAPITALIZED = {"de": 0.5}
CAPITALIZED_ELSEWHERE = 0.2
IN_CAPITALS = 0.02

# A word that the vocabulary knows with capitals inside (iPhone) gets this share in that spelling.
CAPITALS_INSIDE = 0.2

# With these the packed model folder takes 46 MB (results/files.json).
N_PIECES = 103_000

# Words rarer than this add nothing to the choice.
RAREST_WORD = 1e-7

# Languages that do not stay, to say what that costs them; words at least so frequent.
LEFT_OUT_SAMPLED = ("fr", "it", "pt", "nl", "pl", "sv", "uk", "id", "fa", "he", "ko", "bn")
COMMON_WORD = 1e-6

_DIGITS = re.compile(f"{METASPACE}?[0-9]{{1,4}}")
_HELD_OUT_EVERY = 10


@dataclass(frozen=True, slots=True)
class Texts:
    """Passages and questions of one language: to count on, and held out."""

    counted: list[str]
    held_out: list[str]


def training_texts(data: Path) -> dict[str, Texts]:
    """Texts by language; every tenth article is held out (every tenth text without articles)."""
    counted: dict[str, list[str]] = {}
    held_out: dict[str, list[str]] = {}
    for name in TRAINING_FILES:
        for text, language, is_held_out in _texts_of(data, name):
            target = held_out if is_held_out else counted
            target.setdefault(language, []).append(text)
    return {name: Texts(counted[name], held_out[name]) for name in counted}


def _texts_of(data: Path, name: str) -> Iterator[tuple[str, str, bool]]:
    rows = read_training_rows(data, name)
    groups = list(dict.fromkeys(row.group for row in rows))
    held_out = set(groups[::_HELD_OUT_EVERY]) if len(groups) > 1 else set()
    seen: set[str] = set()
    for number, row in enumerate(rows):
        is_held_out = row.group in held_out if held_out else number % _HELD_OUT_EVERY == 0
        for text in (row.query, row.positive):
            if text not in seen:
                seen.add(text)
                yield text, row.language, is_held_out


class PieceCounter:
    """Counts the pieces of texts and weighted words with the untrimmed vocabulary."""

    def __init__(self, base: Base) -> None:
        self._size = len(base.pieces)
        self._capitals_inside = _capitals_inside(base.pieces)
        self._spaced = build_tokenizer(base.pieces, base.scores)
        self._unspaced = build_tokenizer(base.pieces, base.scores, prepend=False)

    def texts(self, texts: list[str]) -> Counts:
        """The share of each piece among all pieces of the texts."""
        counts = np.zeros(self._size)
        for encoding in self._spaced.encode_batch(texts, add_special_tokens=False):
            np.add.at(counts, encoding.ids, 1)
        return np.asarray(counts / counts.sum())

    def words(self, language: str) -> Counts:
        """The share of each piece among all pieces of a language's word list."""
        words, frequencies = zip(*_spelled(language, self._capitals_inside), strict=True)
        tokenizer = self._unspaced if language in WRITTEN_WITHOUT_SPACES else self._spaced
        counts = np.zeros(self._size)
        encodings = tokenizer.encode_batch(list(words), add_special_tokens=False)
        for encoding, frequency in zip(encodings, frequencies, strict=True):
            np.add.at(counts, encoding.ids, frequency)
        return np.asarray(counts / counts.sum())


def _capitals_inside(pieces: list[str]) -> dict[str, str]:
    """Maps a folded word to its spelling, for the pieces that are words like `iPhone`."""
    words = (piece.removeprefix(METASPACE) for piece in pieces)
    return {
        word.casefold(): word
        for word in words
        if word[1:].lower() != word[1:] and word.upper() != word
    }


def _spelled(language: str, capitals_inside: dict[str, str]) -> Iterator[tuple[str, float]]:
    """A language's words in each spelling, with the share of text each makes up."""
    capitalized = CAPITALIZED.get(language, CAPITALIZED_ELSEWHERE)
    for word, frequency in wordfreq.get_frequency_dict(language).items():
        if frequency < RAREST_WORD:
            continue
        if word.upper() == word:
            yield word, frequency
            continue
        yield word, frequency * (1.0 - capitalized - IN_CAPITALS)
        yield word[0].upper() + word[1:], frequency * capitalized
        yield word.upper(), frequency * IN_CAPITALS
        if word in capitals_inside:
            yield capitals_inside[word], frequency * CAPITALS_INSIDE


def need(base: Base, data: Path) -> Counts:
    """How much each piece is needed, by id: the weighted mean over the languages.

    Half of a language's count comes from its training texts, half from its word list. Thai has
    no word list; traditional Chinese takes the simplified one's counts.
    """
    counter = PieceCounter(base)
    total = np.zeros(len(base.pieces))
    for language, texts in tqdm(training_texts(data).items(), desc="vocabulary"):
        counts = counter.texts(texts.counted)
        if language == "zh-Hant":
            counts = (counts + _of_simplified(base.pieces, counter.words("zh"))) / 2
        elif language in wordfreq.available_languages():
            counts = (counts + counter.words(language)) / 2
        total += LANGUAGE_WEIGHTS[language] * counts
    return total


def _of_simplified(pieces: list[str], counts: Counts) -> Counts:
    """For each piece that simplification changes, the count of what it changes to."""
    place = {piece: i for i, piece in enumerate(pieces)}
    found = np.zeros(len(pieces))
    table = _simplification()
    for i, piece in enumerate(pieces):
        simplified = piece.translate(table)
        if simplified != piece and simplified in place:
            found[i] = counts[place[simplified]]
    return found


def _simplification() -> dict[int, str]:
    """Maps traditional to simplified characters, as wordfreq does."""
    path = resources.files("wordfreq") / "data" / "_chinese_mapping.msgpack.gz"
    table: dict[int, str] = msgpack.unpackb(
        gzip.decompress(path.read_bytes()), raw=False, strict_map_key=False
    )
    return table


def is_always_kept(piece: str) -> bool:
    """Special pieces, single characters (with or without a metaspace), numbers to four digits."""
    bare = piece.removeprefix(METASPACE)
    return piece in SPECIAL_PIECES or len(bare) <= 1 or _DIGITS.fullmatch(piece) is not None


def choose(base: Base, data: Path, n_pieces: int) -> list[int]:
    """The ids to keep, in XLM-R's order: what is always kept, then the most needed.

    Among pieces of equal need the one with the higher unigram score wins.
    """
    needed = need(base, data)
    kept = {i for i, piece in enumerate(base.pieces) if is_always_kept(piece)}
    order = np.lexsort((-np.array(base.scores), -needed))
    for i in order.tolist():
        if len(kept) >= n_pieces:
            break
        kept.add(i)
    return sorted(kept)


def trim(base: Base, ids: list[int]) -> Base:
    """The base with these pieces only; their embeddings and scores stay as they are."""
    words = "embeddings.word_embeddings.weight"
    return replace(
        base,
        pieces=[base.pieces[i] for i in ids],
        scores=[base.scores[i] for i in ids],
        tensors={**base.tensors, words: base.tensors[words][ids]},
    )


def segmentation_figures(full: Base, trimmed: Base, texts: Iterable[str]) -> dict[str, float]:
    """What trimming costs on texts: unknown tokens, and how much longer sequences become."""
    before, after = _token_counts(full, texts), _token_counts(trimmed, texts)
    n_characters = sum(len(text) for text in texts)
    return {
        "characters": n_characters,
        "unknown_full": round(before[1] / before[0], 6),
        "unknown_trimmed": round(after[1] / after[0], 6),
        "tokens_per_character_full": round(before[0] / n_characters, 4),
        "tokens_per_character_trimmed": round(after[0] / n_characters, 4),
        "increase": round(after[0] / before[0] - 1, 4),
    }


def _token_counts(base: Base, texts: Iterable[str]) -> tuple[int, int]:
    tokenizer = build_tokenizer(base.pieces, base.scores)
    ids = [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    return sum(map(len, ids)), sum(sequence.count(3) for sequence in ids)


def word_list_increase(full: Base, trimmed: Base) -> dict[str, float]:
    """How many more tokens common words take in languages that were not counted."""
    before = build_tokenizer(full.pieces, full.scores)
    after = build_tokenizer(trimmed.pieces, trimmed.scores)
    table: dict[str, float] = {}
    for language in LEFT_OUT_SAMPLED:
        words = wordfreq.get_frequency_dict(language)
        common = {word: share for word, share in words.items() if share > COMMON_WORD}
        lengths = [
            sum(len(e.ids) * common[word] for word, e in zip(common, encodings, strict=True))
            for encodings in (
                tokenizer.encode_batch(list(common), add_special_tokens=False)
                for tokenizer in (before, after)
            )
        ]
        table[language] = round(lengths[1] / lengths[0] - 1, 4)
    return table
