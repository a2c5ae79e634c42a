"""Whether the watch on the ranking sees faults, and is quiet without: figures and a table.

Usage: python -m benchmarks.drift_simulation [--questions N] [--healthy N] [--runs N] [--window N]

The embedded model scores a few hundred questions once as it should and once under each fault.
Thousands of requests are then drawn from these: a question, ten of its twelve candidates, in an
order as a first stage would give them (relevance and noise). A baseline is recorded from 500
healthy requests, 5,000 others are watched, and then 500 of each fault on top of a healthy window.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_texts import N_CANDIDATES, Question, questions
from benchmarks.results_file import save
from tamis.bench.random_checkpoint import Shape, write_random_checkpoint
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.observability.relevance.baseline import Snapshot, baseline_of, write_baseline
from tamis.observability.relevance.monitor import RelevanceMonitor
from tamis.observability.relevance.signals import Ranking
from tamis.scheduler.scheduler import score_now
from tamis.settings import ModelSettings, RelevanceSettings

N_SHOWN = 10
"""Documents of a request."""
N_QUESTIONS = 160
N_BASELINE = 500
N_HEALTHY = 5000
N_FAULTY = 500
LOOK_EVERY = 10
N_VOCABULARY = 103_000
N_SPECIAL = 5
"""Ids at the start of the vocabulary that have a meaning of their own."""
WORDS_LEFT = 3
"""Of a document that was cut on its way."""
FIRST_STAGE_NOISE = 1.0
"""Standard deviation, where a document's relevance is 0 to 3."""


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
        """So many answers, drawn with their candidates and the order these were given in."""
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


@dataclass(frozen=True)
class Found:
    """What the watch made of some requests.

    Attributes:
        first: The request, from 1, at which each signal first was beyond its line.
        largest: Each signal's largest distance, as a share of its line.
    """

    first: dict[str, int]
    largest: dict[str, float]


def make_pools(model: LoadedModel, asked: Sequence[Question], work: Path) -> dict[str, Pool]:
    """The healthy pool, under "healthy", and one for each fault."""
    every_other = np.arange(N_CANDIDATES) % 2 == 0
    wrong = load_model(
        ModelSettings(name=str(_random_model(work / "wrong")), cache_dir=work / "cache", threads=1)
    )
    healthy = _scored(model, asked)
    shorter = _with_columns(healthy, every_other, _scored(model, [_cut(one) for one in asked]))
    by_server = np.tile(every_other, (len(asked), 1))
    return {
        "healthy": healthy,
        "tokenizer swapped": _scored(model, asked, _with_other_ids),
        "half the documents cut before they came": shorter,
        "half the documents cut by the server": replace(shorter, truncated=by_server),
        "a wrong model": _scored(wrong, asked),
        "shuffled input": replace(healthy, is_shuffled=True),
    }


def record(pool: Pool, *, seed: int, n: int = N_BASELINE) -> Snapshot:
    """The last of so many healthy requests, as a server would give them."""
    monitor = RelevanceMonitor(RelevanceSettings(window=n))
    for ranking in pool.requests(n, seed=seed):
        monitor.observe(ranking)
    (snapshot,) = monitor.snapshots()
    return snapshot


def watch(monitor: RelevanceMonitor, requests: Iterator[Ranking]) -> Found:
    """Feed a monitor, and look every few requests."""
    first: dict[str, int] = {}
    largest: dict[str, float] = {}
    for number, ranking in enumerate(requests, 1):
        monitor.observe(ranking)
        if number % LOOK_EVERY:
            continue
        for drift in monitor.drifts():
            for verdict in drift.verdicts:
                share = verdict.distance / verdict.line
                largest[verdict.signal] = max(share, largest.get(verdict.signal, 0.0))
                if verdict.crossed:
                    first.setdefault(verdict.signal, number)
    return Found(first, largest)


def simulate(
    pools: dict[str, Pool],
    work: Path,
    *,
    seed: int,
    n_healthy: int = N_HEALTHY,
    window: int = N_FAULTY,
) -> dict[str, Found]:
    """A baseline, healthy requests, and each fault after a window of healthy ones."""
    file = work / "baseline.json"
    write_baseline(file, baseline_of(record(pools["healthy"], seed=seed)))
    settings = RelevanceSettings(window=window, baseline=file)
    found = {
        "healthy": watch(
            RelevanceMonitor(settings), pools["healthy"].requests(n_healthy, seed=seed + 1)
        )
    }
    for number, fault in enumerate(name for name in pools if name != "healthy"):
        monitor = RelevanceMonitor(settings)
        for ranking in pools["healthy"].requests(window, seed=seed + 2 + number):
            monitor.observe(ranking)
        found[fault] = watch(monitor, pools[fault].requests(N_FAULTY, seed=seed + 100 + number))
    return found


def _scored(
    model: LoadedModel,
    asked: Sequence[Question],
    change: Callable[[list[EncodedPair]], list[EncodedPair]] = list,
) -> Pool:
    pairs = [change(model.tokenizer.encode(one.query, one.documents)) for one in asked]
    flat = [pair for of_one in pairs for pair in of_one]
    logits = score_now(model.backend, flat, max_batch_tokens=model.max_batch_tokens)
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


def main() -> int:
    """Simulate, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=N_QUESTIONS)
    parser.add_argument("--healthy", type=int, default=N_HEALTHY)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--window", type=int, default=N_FAULTY)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        model = load_model(ModelSettings(cache_dir=Path(work) / "cache"))
        pools = make_pools(model, questions(options.questions, seed=1), Path(work))
        runs = [
            simulate(
                pools,
                Path(work),
                seed=1000 * run,
                n_healthy=options.healthy,
                window=options.window,
            )
            for run in range(options.runs)
        ]
    measured: dict[str, Any] = {
        "questions": options.questions,
        "healthy_requests": options.healthy,
        "window": options.window,
        "runs": options.runs,
        "found": {name: _summary([run[name] for run in runs]) for name in runs[0]},
    }
    print(json.dumps(measured, indent=2))
    print(save("drift_simulation", measured))
    return 0


def _summary(runs: Sequence[Found]) -> dict[str, Any]:
    """Over all runs: in how many each signal alarmed, when at the latest, and how near it came."""
    signals = sorted({signal for run in runs for signal in run.largest})
    return {
        "runs_with_an_alert": sum(bool(run.first) for run in runs),
        "first_alert_at_the_latest": max(
            (min(run.first.values()) for run in runs if run.first), default=None
        ),
        "signals": {
            signal: {
                "runs_with_an_alert": sum(signal in run.first for run in runs),
                "largest_distance_by_line": round(
                    max(run.largest.get(signal, 0.0) for run in runs), 3
                ),
            }
            for signal in signals
        },
    }


if __name__ == "__main__":
    sys.exit(main())
