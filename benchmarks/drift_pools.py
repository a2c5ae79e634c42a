"""Questions scored by the embedded model, as it should and under each fault: what to draw from.

The logits are kept in `drift_pools.json`, since scoring takes a minute; a test scores some of them
again. `python -m benchmarks.drift_simulation --score` rewrites the file.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_texts import N_CANDIDATES, Question, questions
from tamis.bench.random_checkpoint import Shape, write_random_checkpoint
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.relevance.signals import Ranking
from tamis.scheduler.scheduler import score_now
from tamis.settings import ModelSettings

FILE = Path(__file__).parent / "drift_pools.json"
SEED = 1
N_QUESTIONS = 80
N_SHOWN = 10
"""Documents of a request."""
N_VOCABULARY = 103_000
N_SPECIAL = 5
"""Ids at the start of the vocabulary that have a meaning of their own."""
WORDS_LEFT = 3
"""Of a document that was cut on its way."""
FIRST_STAGE_NOISE = 1.0
"""Standard deviation, where a document's relevance is 0 to 3."""

HEALTHY = "healthy"
SWAPPED = "tokenizer swapped"
CUT_BEFORE = "half the documents cut before they came"
CUT_HERE = "half the documents cut by the server"
WRONG = "a wrong model"
SHUFFLED = "shuffled input"
SCORED = (HEALTHY, SWAPPED, CUT_BEFORE, WRONG)
"""Pools with logits of their own."""

_EVERY_OTHER = np.arange(N_CANDIDATES) % 2 == 0


@dataclass(frozen=True)
class Pool:
    """Scored questions to draw requests from.

    Attributes:
        logits: (n_questions, n_candidates).
        n_tokens: (n_questions, n_candidates).
        truncated: Whether the server cut a document, (n_questions, n_candidates).
        grades: (n_questions, n_candidates).
        is_shuffled: Whether candidates come in no order.
    """

    logits: NDArray[np.float32]
    n_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    grades: NDArray[np.int64]
    is_shuffled: bool = False

    def requests(self, n: int, *, seed: int) -> Iterator[Ranking]:
        """A sample of answers, drawn with their candidates and the order these were given in."""
        rng = np.random.default_rng(seed)
        for _ in range(n):
            row = int(rng.integers(len(self.logits)))
            drawn = rng.permutation(N_CANDIDATES)[:N_SHOWN]
            if not self.is_shuffled:
                noise = rng.normal(scale=FIRST_STAGE_NOISE, size=N_SHOWN)
                drawn = drawn[np.argsort(-(self.grades[row, drawn] + noise))]
            yield Ranking(
                model="tamis-mini",
                dialect="native",
                caller="",
                logits=self.logits[row, drawn].tolist(),
                n_truncated=int(self.truncated[row, drawn].sum()),
                n_tokens=int(self.n_tokens[row, drawn].sum()),
                n_shown=N_SHOWN,
            )


def asked() -> list[Question]:
    """The questions of all pools."""
    return questions(N_QUESTIONS, seed=SEED)


def score(model: LoadedModel, work: Path) -> dict[str, Pool]:
    """The pools that need a model; a minute or so.

    Args:
        model: The embedded one.
        work: A folder for the wrong one.
    """
    every = asked()
    wrong = load_model(
        ModelSettings(name=str(_random_model(work / "wrong")), cache_dir=work / "cache", threads=1)
    )
    healthy = scored(model, every)
    cut = scored(model, [_cut(one) for one in every])
    return {
        HEALTHY: healthy,
        SWAPPED: scored(model, every, _with_other_ids),
        CUT_BEFORE: _with_columns(healthy, _EVERY_OTHER, cut),
        WRONG: scored(wrong, every),
    }


def write(pools: dict[str, Pool]) -> None:
    """Keep the logits, to seven decimals (the wrong model differs in the fifth), and the tokens."""
    kept = {
        name: {
            "logits": pools[name].logits.astype(float).round(7).tolist(),
            "n_tokens": pools[name].n_tokens.tolist(),
        }
        for name in SCORED
    }
    FILE.write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")


def read() -> dict[str, Pool]:
    """All pools: those that were kept, and those that differ from them in another way."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    grades = np.array([one.grades for one in asked()])
    none = np.zeros(grades.shape, dtype=np.bool_)
    pools = {
        name: Pool(
            np.array(kept[name]["logits"], dtype=np.float32),
            np.array(kept[name]["n_tokens"]),
            none,
            grades,
        )
        for name in SCORED
    }
    return pools | {
        CUT_HERE: replace(pools[CUT_BEFORE], truncated=none | _EVERY_OTHER),
        SHUFFLED: replace(pools[HEALTHY], is_shuffled=True),
    }


def scored(
    model: LoadedModel,
    asked: Sequence[Question],
    change: Callable[[list[EncodedPair]], list[EncodedPair]] = list,
) -> Pool:
    """Questions as a model scores them.

    Args:
        model: Which one.
        asked: The questions.
        change: What becomes of each one's pairs before.
    """
    pairs = [change(model.tokenizer.encode(one.query, one.documents)) for one in asked]
    flat = [pair for of_one in pairs for pair in of_one]
    logits = score_now(model.backend, flat, max_batch_tokens=model.facts.max_batch_tokens)
    shape = (len(asked), -1)
    return Pool(
        logits=logits.reshape(shape),
        n_tokens=np.array([pair.n_tokens for pair in flat]).reshape(shape),
        truncated=np.array([pair.truncated for pair in flat]).reshape(shape),
        grades=np.array([one.grades for one in asked]),
    )


def _cut(question: Question) -> Question:
    """Every other document of a question, cut to its first words."""
    short = (" ".join(text.split()[:WORDS_LEFT]) for text in question.documents[::2])
    return Question(question.query, tuple(short), question.grades[::2])


def _with_columns(pool: Pool, columns: NDArray[np.bool_], other: Pool) -> Pool:
    """A pool with some of its documents, (n_candidates,), scored as in another of these alone."""
    logits, n_tokens = pool.logits.copy(), pool.n_tokens.copy()
    logits[:, columns], n_tokens[:, columns] = other.logits, other.n_tokens
    return replace(pool, logits=logits, n_tokens=n_tokens)


def _with_other_ids(pairs: list[EncodedPair]) -> list[EncodedPair]:
    """The same pieces under the ids of another vocabulary; the query stays one for all pairs."""
    order = np.random.default_rng(0).permutation(np.arange(N_SPECIAL, N_VOCABULARY))
    swapped = np.concatenate([np.arange(N_SPECIAL), order]).astype(np.int32)
    made: dict[int, TokenSequence] = {}

    def other(sequence: TokenSequence) -> TokenSequence:
        found = made.get(id(sequence))
        if found is None:
            found = made[id(sequence)] = replace(sequence, token_ids=swapped[sequence.token_ids])
        return found

    return [replace(pair, sequences=tuple(map(other, pair.sequences))) for pair in pairs]


def _random_model(folder: Path) -> Path:
    shape = Shape(
        n_layers=2, n_heads=2, hidden=32, inner=64, vocabulary=N_VOCABULARY, positions=514
    )
    return write_random_checkpoint(folder, shape)
