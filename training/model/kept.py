"""Token states of many texts by one model, computed once and kept in float16."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.texts import Texts
from training.measure.matching import DOCUMENT_PREFIX, QUERY_PREFIX, PairScorer, SideStates
from training.saving import save_arrays

PASSAGE_TOKENS = 200
QUERY_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Kept:
    """Unit token states of many texts, in float16, and their pooled states."""

    tokens: NDArray[np.float16]  # (n_tokens, hidden)
    pooled: NDArray[np.float32]  # (n_texts, hidden)
    ids: NDArray[np.int32]  # (n_tokens,)
    starts: NDArray[np.int64]  # (n_texts + 1,)

    @classmethod
    def of(cls, sides: Sequence[SideStates]) -> Kept:
        """Keeps the states of texts."""
        return cls(
            np.concatenate([side.tokens.astype(np.float16) for side in sides]),
            np.stack([side.pooled for side in sides]),
            np.concatenate([np.array(side.ids, dtype=np.int32) for side in sides]),
            np.cumsum([0, *(len(side.ids) for side in sides)]),
        )

    @classmethod
    def load(cls, path: Path) -> Kept:
        """Reads what was saved."""
        with np.load(path) as file:
            return cls(file["tokens"], file["pooled"], file["ids"], file["starts"])

    def save(self, path: Path) -> None:
        """Writes all of it."""
        save_arrays(path, tokens=self.tokens, pooled=self.pooled, ids=self.ids, starts=self.starts)

    def text(self, number: int) -> slice:
        """Where the tokens of a text stand."""
        return slice(int(self.starts[number]), int(self.starts[number + 1]))


def fingerprint(folder: Path, drawn: Texts) -> str:
    """Of the model and the texts that it encodes."""
    queries = [query.text for query in drawn.queries]
    passages = [passage.text for passage in drawn.passages]
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes())
    digest.update(repr(((QUERY_TOKENS, PASSAGE_TOKENS), queries, passages)).encode())
    return digest.hexdigest()[:16]


def encode(folder: Path, drawn: Texts, work: Path) -> tuple[Kept, Kept]:
    """States of the queries and of the passages by a model folder, computed once."""
    name = fingerprint(folder, drawn)
    paths = [work / "projection" / f"{kind}-{name}.npz" for kind in ("queries", "passages")]
    if not all(path.exists() for path in paths):
        scorer = PairScorer(folder, "float32", work)
        asked = scorer.encode(
            [query.text for query in drawn.queries], QUERY_PREFIX, QUERY_TOKENS, "questions"
        )
        read = scorer.encode(
            [passage.text for passage in drawn.passages],
            DOCUMENT_PREFIX,
            PASSAGE_TOKENS,
            "passages",
        )
        for path, sides in zip(paths, (asked, read), strict=True):
            Kept.of(sides).save(path)
    return Kept.load(paths[0]), Kept.load(paths[1])
