"""Names of fields as people send them: each is understood or named in a warning."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import Any

from tamis.wire.dialect import RawBody, peek

MOST_FIELDS = 256
"""Of one body that are looked at; no client sends a tenth of them."""
MOST_WARNINGS = 8

_SHOWN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
"""Names that may be repeated; any other is the caller's text."""
_SEPARATORS = re.compile(r"[-_. ]")

_DOCUMENTS = ("passages", "docs", "documents", "texts", "inputs", "input", "candidates")
_EMPTY: tuple[object, ...] = (None, "", "{}", [], {})
"""What clients send for nothing."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "top_n": ("topn", "topk", "k"),
    "return_documents": ("returntext", "returntexts", "returndocs", "returndocument"),
    "documents": _DOCUMENTS,
    "threshold": ("scorethreshold", "relevancethreshold", "minscore"),
    "truncate": ("truncation",),
    "truncation_side": ("truncationdirection",),
    "timeout_ms": ("timeoutms",),
}
"""For each field other names of it, without separators and in lower case."""

_SERVERS_OWN = "the server's option model.max_length decides it for all callers"
IGNORED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("maxlength", "maxtokens", "maxtokensperdoc", "maxtokensperquery"),
            *("truncateprompttokens", "maxseqlength", "maxquerylength"),
        ),
        _SERVERS_OWN,
    ),
    "maxchunksperdoc": "a document is read as one piece, and cut",
    "overlaptokens": "a document is read as one piece, and cut",
    "rankfields": "the `text` of a document is ranked",
    "rawscores": "this answer's scores are those that it always has",
    "useactivation": "this answer's scores are those that it always has",
    "normalize": "this answer's scores are those that it always has",
    "instruction": "the model takes no instruction",
    "model": "the server serves one model",
}
"""Fields of other servers, and why they change nothing here."""
_TRUNCATE: Mapping[str, tuple[bool, str | None]] = {
    "END": (True, "right"),
    "START": (True, "left"),
    "NONE": (False, None),
}
_HARMLESS = frozenset({"user", "requestid", "returnlen"})
"""Fields that ask for nothing of the answer."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The names that a dialect reads.

    Args:
        own: As they stand in its request type.
        renamed: Its own name of a field that others call otherwise: TEI's `texts`.
    """

    own: tuple[str, ...]
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])

    def read(self, body: RawBody) -> tuple[RawBody, tuple[str, ...]]:
        """The body under the dialect's own names, and what is to be said of the others."""
        names = self._spelled()
        known: dict[str, Any] = {name: body[name] for name in self.own if name in body}
        warnings: list[str] = []
        if len(body) > MOST_FIELDS:
            warnings.append(f"of {len(body):,} fields {MOST_FIELDS} are looked at")
        for name, value in islice(body.items(), MOST_FIELDS):
            if name in self.own or peek(value) in _EMPTY:
                continue
            own = names.get(folded(name))
            if own is not None and peek(known.get(own)) is None:
                known[own] = value
            elif own is not None:
                warnings.append(f"{_shown(name)} is ignored: `{own}` is there, too")
            else:
                warnings.extend(_ignored(name, value, names))
        n_more = len(warnings) - MOST_WARNINGS
        if n_more > 0:
            warnings[MOST_WARNINGS:] = [f"{n_more:,} more fields are ignored"]
        return self._with_truncation(known), tuple(warnings)

    def _with_truncation(self, body: dict[str, Any]) -> RawBody:
        """`"truncate": "END"` as Cohere and NVIDIA write it, in two fields."""
        value = peek(body.get("truncate"))
        spelled = _TRUNCATE.get(value.upper()) if isinstance(value, str) else None
        if spelled is None:
            return body
        truncate, side = spelled
        name = self.renamed.get("truncation_side", "truncation_side")
        return body | {"truncate": truncate} | ({name: side} if side else {})

    def _spelled(self) -> dict[str, str]:
        """Own names by every spelling that stands for them."""
        spelled: dict[str, str] = {}
        for name, others in ALIASES.items():
            own = self.renamed.get(name, name)
            if own in self.own:
                spelled |= dict.fromkeys((folded(name), *others), own)
        return spelled | {folded(name): name for name in self.own}


def names_documents(name: str) -> bool:
    """Whether a field is the documents, in any dialect."""
    return folded(name) in _DOCUMENTS


def folded(name: str) -> str:
    """A name without what people vary in it: `top-n`, `topN` and `TOP_N` are one."""
    return _SEPARATORS.sub("", name[:64]).lower()


def _ignored(name: str, value: object, spelled: Mapping[str, str]) -> Iterable[str]:
    known = folded(name)
    if known in _HARMLESS or (
        known in IGNORED and peek(value) in (0, -1)
    ):  # vLLM's "as the model has it"
        return
    if known in IGNORED:
        yield f"{_shown(name)} is ignored: {IGNORED[known]}"
        return
    near = get_close_matches(known, spelled, n=1, cutoff=0.7) if len(known) < 40 else []
    hint = f"; did you mean `{spelled[near[0]]}`?" if near else ""
    yield f"{_shown(name)} is ignored: no such field{hint}"


def _shown(name: str) -> str:
    return f"`{name}`" if _SHOWN.fullmatch(name) else "a field with an odd name"
