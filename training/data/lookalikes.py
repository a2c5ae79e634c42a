"""Short documents that teach to tell an answer from a document that repeats the query's words.

For a query: the sentence that answers it, the same without the words it shares with the query,
sentences of other articles that share many words with it, and unrelated sentences into which a
part of the query is put.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from training.data.first_stage import Bm25
from training.data.negatives import RankingList, is_han
from training.data.texts import Query, Texts, sentences
from training.model.base import Floats

SEED = 3
# Maximum number of queries per source.
N_QUERIES = {
    "cmrc2018": 2200,
    "drcd": 2600,
    "jsquad": 1800,
    "medquad": 2200,
    "pubmedqa": 700,
    "xquad-en": 690,
    "xquad-zh": 690,
    **dict.fromkeys(("xquad-de", "xquad-es", "xquad-ru"), 250),
}
MAX_TOKENS = 100
N_LOOKALIKES = 2
N_SPLICED = 2
MOST_SENTENCES = 16_000
MOST_CHARACTERS = 400

# A piece with so much information (minus its log-probability) is a word that counts, not grammar.
CONTENT_INFORMATION = 7.5
REMOVED = 0.75

Ids = list[int]


@dataclass(frozen=True, slots=True)
class Example:
    """A query with short documents, by number: answers, and what only looks like one."""

    query: int
    answers: tuple[int, ...]
    others: tuple[int, ...]


@dataclass(slots=True)
class Lookalikes:
    """Examples, and their documents as token ids without prefix."""

    examples: list[Example] = field(default_factory=list)
    documents: list[Ids] = field(default_factory=list)

    def place(self, ids: Ids) -> int:
        """The number of a document, which is cut."""
        self.documents.append(ids[:MAX_TOKENS])
        return len(self.documents) - 1


class _Writer:
    """Makes the examples of one source."""

    def __init__(
        self, texts: Texts, source: str, tokenizer: Tokenizer, information: Floats, seed: int
    ) -> None:
        self._texts = texts
        self._tokenizer = tokenizer
        self._information = information
        self._chance = random.Random(f"{seed} {source}")
        self._sentences = [
            (number, passage.text[start:end].strip()[:MOST_CHARACTERS])
            for number, passage in enumerate(texts.passages)
            if passage.source == source
            for start, end in sentences(passage.text)
            if end - start >= 12
        ]
        self._chance.shuffle(self._sentences)
        del self._sentences[MOST_SENTENCES:]
        self._bm25 = Bm25([text for _, text in self._sentences], han=is_han(source))

    def write(self, made: Lookalikes, number: int, answer: int) -> None:
        """Adds one query's example, unless its texts are too short for one."""
        query = self._texts.queries[number]
        asked = self._ids(query.text)
        content = {piece for piece in asked if self._information[piece] > CONTENT_INFORMATION}
        answering = self._answering(answer, content)
        if not content or len(answering) < 4:
            return
        answers = [made.place(answering)]
        bare = [p for p in answering if p not in content or self._chance.random() > REMOVED]
        if 5 <= len(bare) < len(answering):
            answers.append(made.place(bare))
        others = [made.place(self._ids(text)) for text in self._lookalikes(query, answer)]
        others += [made.place(ids) for ids in self._spliced(asked, query)]
        if len(others) >= 2:
            made.examples.append(Example(number, tuple(answers), tuple(others)))

    def _ids(self, text: str) -> Ids:
        ids: Ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _answering(self, answer: int, content: set[int]) -> Ids:
        """The sentence with most of the query's information, at times with the one behind it."""
        text = self._texts.passages[answer].text
        found = [self._ids(text[start:end]) for start, end in sentences(text)]
        if not found:
            return []
        shared = [sum(self._information[p] for p in content & set(ids)) for ids in found]
        best = int(np.argmax(shared))
        more = found[best + 1] if best + 1 < len(found) and self._chance.random() < 0.4 else []
        return found[best] + more

    def _lookalikes(self, query: Query, answer: int) -> list[str]:
        order = np.argsort(-self._bm25.scores(query.text), kind="stable")[:12].tolist()
        found = [self._sentences[i] for i in order]
        return [text for number, text in found if self._is_elsewhere(number, query)][:N_LOOKALIKES]

    def _spliced(self, asked: Ids, query: Query) -> list[Ids]:
        """Unrelated sentences with a part of the query inside, at times in two pieces."""
        made: list[Ids] = []
        for number, text in self._chance.choices(self._sentences, k=N_SPLICED):
            if not self._is_elsewhere(number, query):
                continue
            rest = self._ids(text)[:60]
            size = max(2, int(len(asked) * self._chance.uniform(0.4, 1)))
            start = self._chance.randint(0, max(0, len(asked) - size))
            part = asked[start : start + size]
            cut = len(part) // 2 if len(part) > 4 and self._chance.random() < 0.5 else len(part)
            first, second = sorted(self._chance.choices(range(len(rest) + 1), k=2))
            made.append(rest[:first] + part[:cut] + rest[first:second] + part[cut:] + rest[second:])
        return made

    def _is_elsewhere(self, number: int, query: Query) -> bool:
        passage = self._texts.passages[number]
        if query.source == "pubmedqa":  # one group; the passage itself is what counts
            return all(passage.work != self._texts.passages[n].work for n in query.passages)
        return passage.group != query.group


def write_lookalikes(
    texts: Texts, lists: Sequence[RankingList], tokenizer: Tokenizer, information: Floats
) -> Lookalikes:
    """Makes all examples, from queries that are not held out.

    Args:
        texts: What there is.
        lists: Of the same queries, for the answer among a passage's parts.
        tokenizer: The model's.
        information: Minus the log-probability of each piece, (n_pieces,).
    """
    made = Lookalikes()
    for source, most in N_QUERIES.items():
        chosen = [
            number
            for number, query in enumerate(texts.queries)
            if query.source == source and query.kind == "question" and not query.is_held_out
        ]
        if chosen:
            random.Random(f"{SEED} {source}").shuffle(chosen)
            writer = _Writer(texts, source, tokenizer, information, SEED)
            for number in chosen[:most]:
                writer.write(made, number, lists[number].passages[0])
    return made
