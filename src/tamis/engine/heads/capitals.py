"""Words in capitals, which a vocabulary with few of them would cut into many odd pieces."""

import re
from itertools import groupby

LEAST_CAPITALS = 5
"""A shorter word in capitals is more often an abbreviation, which is written in capitals anyway."""

_WORD = re.compile(r"(?:[^\W\d_][\u0300-\u036f]*)+")  # an accent may be a character of its own
_NO_SMALL_LETTER = re.compile(rf"(?:[^\W\d_a-z][\u0300-\u036f]*){{{LEAST_CAPITALS}}}")


def lower_capitals(text: str) -> str:
    """The text with words in capitals in lower case, where one of a run of them is long.

    A run is words without a small letter, with no other word between them: "WHAT IS THE CAPITAL?"
    and "a WARNING" change; "NASA", "iOS" and "DNA or RNA" stay. Each character keeps its place.
    """
    if _NO_SMALL_LETTER.search(text) is None or text.lower() == text:
        return text
    parts: list[str] = []
    end = 0
    for in_capitals, run in groupby(_WORD.finditer(text), lambda word: word[0].isupper()):
        words = list(run)
        if in_capitals and any(map(_is_long, words)):
            start, stop = words[0].start(), words[-1].end()
            # İ is the one letter whose lower case has two characters
            parts += [text[end:start], text[start:stop].replace("İ", "I").lower()]
            end = stop
    return "".join([*parts, text[end:]])


def _is_long(word: re.Match[str]) -> bool:
    return sum(map(str.isupper, word[0])) >= LEAST_CAPITALS
