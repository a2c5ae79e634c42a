"""Keyword traps, frozen before the embedded model was first trained."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "keyword_traps.jsonl"
N_OF_EACH_LANGUAGE = 20


@dataclass(frozen=True, slots=True)
class Trap:
    """A query, a document that answers it in other words, and one that repeats its words."""

    language: str
    query: str
    answer: str
    trap: str

    def words_shared_with(self, document: str) -> int:
        """How many of the query's words (Chinese: characters) a document has."""
        return len(self._terms(self.query) & self._terms(document))

    def _terms(self, text: str) -> set[str]:
        pattern = r"[^\W_]" if self.language == "zh" else r"\w+"
        return set(re.findall(pattern, text.lower()))


TRAPS = [Trap(**json.loads(line)) for line in FILE.read_text(encoding="utf-8").splitlines()]


def test_there_are_twenty_traps_in_english_and_twenty_in_chinese() -> None:
    assert Counter(trap.language for trap in TRAPS) == {
        "en": N_OF_EACH_LANGUAGE,
        "zh": N_OF_EACH_LANGUAGE,
    }


def test_each_trap_shares_more_of_the_query_s_words_than_the_answer_does() -> None:
    shared = [(t.words_shared_with(t.trap), t.words_shared_with(t.answer), t.query) for t in TRAPS]
    assert [query for in_trap, in_answer, query in shared if in_trap <= in_answer] == []
