"""Seeded texts to measure with: words of the embedded model's vocabulary, lengths as in use."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast

import numpy as np

from tamis.bench import WorkloadName
from tamis.engine.checkpoint import TOKENIZER_FILE
from tamis.engine.files import read_json
from tamis.engine.location import EMBEDDED_FOLDER

QUERY_TOKENS = 17


@dataclass(frozen=True, slots=True)
class Workload:
    """One request: a query and its documents."""

    query: str
    documents: tuple[str, ...]


def short(n_documents: int, *, seed: int = 1) -> Workload:
    """Documents of 20 to 60 tokens, evenly."""
    random = np.random.default_rng(seed)
    return _workload(random, random.integers(20, 61, n_documents))


def rag_mix(n_documents: int, *, seed: int = 2) -> Workload:
    """Documents of log-normal lengths: median 120 tokens, sigma 0.65, clipped to 20-494."""
    random = np.random.default_rng(seed)
    lengths = np.clip(random.lognormal(np.log(120), 0.65, n_documents), 20, 494)
    return _workload(random, lengths.astype(int))


def long(n_documents: int, *, seed: int = 3) -> Workload:
    """Documents of 400 to 490 tokens, evenly."""
    random = np.random.default_rng(seed)
    return _workload(random, random.integers(400, 491, n_documents))


def even(n_documents: int, n_tokens: int, *, seed: int = 4) -> Workload:
    """Documents of one length."""
    random = np.random.default_rng(seed)
    return _workload(random, np.full(n_documents, n_tokens))


class _MakeWorkload(Protocol):
    def __call__(self, n_documents: int, *, seed: int) -> Workload: ...


_BY_NAME: dict[WorkloadName, _MakeWorkload] = {"short": short, "rag-mix": rag_mix, "long": long}


def make_workload(name: WorkloadName, n_documents: int, *, seed: int) -> Workload:
    """The workload of that name; the same texts for the same seed."""
    return _BY_NAME[name](n_documents, seed=seed)


def _workload(random: np.random.Generator, lengths: Any) -> Workload:
    words = _words()
    texts = [" ".join(random.choice(words, int(n))) for n in (QUERY_TOKENS, *lengths)]
    return Workload(texts[0], tuple(texts[1:]))


@cache
def _words() -> list[str]:
    """Pieces that are whole lower-case Latin words: each is one token where it stands alone."""
    model = cast("dict[str, Any]", read_json(EMBEDDED_FOLDER / TOKENIZER_FILE)["model"])
    pieces = [cast("str", piece) for piece, _ in model["vocab"]]
    words = [piece[1:] for piece in pieces if piece.startswith("▁")]
    return [word for word in words if len(word) > 3 and word.isascii() and word.islower()][:8000]
