"""The token budget of one forward pass, measured by `tamis models tune` and kept with the model.

A small budget pays the fixed cost of a pass more often; a large one overflows the processor's
caches and pads attention further. Where the best lies differs between processors. Nothing is
measured at a start: a default that is good everywhere holds until somebody measures, and a result
takes its place only when every run of it was clearly faster than every run of the default. The
fastest of CTranslate2's kernels are stored with it (`kernel_tuning.py`).
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from uuid import uuid4

import msgspec
import numpy as np
from numpy.typing import NDArray

from tamis.engine.checkpoint import Count
from tamis.engine.collate import PackedBatch
from tamis.engine.ctranslate2.kernels import Kernels
from tamis.engine.device import processor_name
from tamis.engine.files import read_json
from tamis.engine.runtime import DEFAULT_BATCH_TOKENS, Runtime
from tamis.errors import ModelError

logger = logging.getLogger(__name__)

TUNING_FILE = "tamis-tuning.json"
BUDGETS = (512, 1024, 2048)
ROUNDS = 4
"""How often each budget is timed, in turn with the default."""
_PASSES = 2
LONG_SECONDS = 1.0
"""A pass that takes longer is not repeated in the same round."""
CLEARLY_FASTER = 1.05
"""How many times as fast the slowest run must be as the fastest run of the default."""

_MEDIAN_TOKENS, _SIGMA, _SHORTEST, _LONGEST = 140, 0.65, 36, 512  # pairs as retrieval brings them
_SEED = 0


class Tuning(msgspec.Struct, frozen=True):
    """What was measured on one processor.

    Attributes:
        max_batch_tokens: The budget to take.
        tokens_per_second: Of each budget that was tried, medians.
        kernels: What CTranslate2 is to compute with; None where its own choice holds.
        kernels_tokens_per_second: Of those that were tried, at `max_batch_tokens`.
    """

    max_batch_tokens: Count
    tokens_per_second: dict[str, float]
    kernels: Kernels | None = None
    kernels_tokens_per_second: dict[Kernels, float] = {}

    @property
    def speed(self) -> float:
        """Tokens a second of the budget to take, with the kernels it was measured with."""
        return self.tokens_per_second[str(self.max_batch_tokens)]


def tune(runtime: Runtime, folder: Path, *, threads: int, max_length: int) -> Tuning:
    """Measure a runtime's best budget and store it with the model.

    Args:
        runtime: The encoder, ready to run.
        folder: Its converted model; a measurement that cannot be kept there is lost.
        threads: CPU threads of one forward pass.
        max_length: Tokens a sequence may have.
    """
    runs = _measure(runtime, max_length)
    tuning = Tuning(choose_budget(runs), {str(n): median(speeds) for n, speeds in runs.items()})
    keep_tuning(folder, tuning, dtype=runtime.dtype, threads=threads)
    logger.info("measured on this processor: %d tokens a forward pass", tuning.max_batch_tokens)
    return tuning


def keep_tuning(folder: Path, tuning: Tuning, *, dtype: str, threads: int) -> None:
    """Store a measurement of this processor; where that cannot be, the log says so."""
    try:
        _store(folder / TUNING_FILE, tuning_key(dtype, threads), tuning)
    except OSError as error:
        logger.warning("cannot keep what was measured in %s: %s", folder, error)


def read_tuning(folder: Path, *, dtype: str, threads: int, quietly: bool = False) -> Tuning | None:
    """What was measured on this processor; None if nothing was, or the file is corrupt.

    Args:
        folder: The converted model.
        dtype: What it computes in.
        threads: CPU threads of one forward pass.
        quietly: Whether to leave the warning about a corrupt file to a later reader.
    """
    try:
        return _read(folder / TUNING_FILE).get(tuning_key(dtype, threads))
    except ModelError as error:
        if not quietly:
            logger.warning("the measured token budget is not used: %s", error)
        return None


def tuning_key(dtype: str, threads: int) -> str:
    """What a measurement holds for; with another processor, library or number it is not read."""
    return f"{processor_name()}, {threads} threads, {dtype}, ctranslate2 {version('ctranslate2')}"


def choose_budget(runs: Mapping[int, Sequence[float]]) -> int:
    """The fastest budget, or the default where none is clearly faster.

    Args:
        runs: Tokens a second of each budget's runs, the default among them.
    """
    default = DEFAULT_BATCH_TOKENS["cpu"]
    winners = [b for b, speeds in runs.items() if is_clearly_faster(speeds, runs[default])]
    return max(winners, key=lambda budget: median(runs[budget]), default=default)


def is_clearly_faster(speeds: Sequence[float], others: Sequence[float]) -> bool:
    """Whether every run beats every other: a busy machine's luck does not last that long."""
    return min(speeds) > CLEARLY_FASTER * max(others)


def warm_up(runtime: Runtime, max_length: int) -> NDArray[np.float32]:
    """One small pass, so that the first that is timed finds everything in place; its outputs."""
    return runtime.forward(seeded_batches(DEFAULT_BATCH_TOKENS["cpu"], max_length)[-1])


def measure_speed(
    runtime: Runtime, budget: int, max_length: int, *, give_up_below: float = 0.0
) -> float:
    """Tokens a second with a budget: the better of two passes over the same seeded lengths.

    One long pass is enough (`LONG_SECONDS`). A measurement that falls below `give_up_below` tokens
    a second ends early, with a figure that is below it too.
    """
    batches = seeded_batches(budget, max_length)
    n_tokens = sum(len(batch.token_ids) for batch in batches)
    most_seconds = n_tokens / give_up_below if give_up_below else float("inf")
    best = 0.0
    for _ in range(_PASSES):
        seconds = _seconds(runtime, batches, most_seconds)
        best = max(best, n_tokens / seconds)
        if seconds > min(most_seconds, LONG_SECONDS):
            break
    return best


def seeded_batches(budget: int, max_length: int) -> list[PackedBatch]:
    """The same seeded lengths, longest first, cut into batches of at most `budget` tokens."""
    random = np.random.default_rng(_SEED)
    lengths: list[int] = []
    while sum(lengths) < max(BUDGETS):
        drawn = random.lognormal(np.log(_MEDIAN_TOKENS), _SIGMA)
        lengths.append(int(min(max(drawn, _SHORTEST), _LONGEST, max_length)))
    batches: list[list[int]] = [[]]
    for length in sorted(lengths, reverse=True):
        if batches[-1] and sum(batches[-1]) + length > budget:
            batches.append([])
        batches[-1].append(length)
    return [_batch(batch) for batch in batches]


def _measure(runtime: Runtime, max_length: int) -> dict[int, list[float]]:
    """Tokens a second by budget, in turn; a budget that cannot win any more is left out."""
    warm_up(runtime, max_length)
    default = DEFAULT_BATCH_TOKENS["cpu"]
    runs: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    left = list(BUDGETS)
    for _ in range(ROUNDS):
        for budget in left:
            runs[budget].append(measure_speed(runtime, budget, max_length))
        left = [b for b in left if b == default or is_clearly_faster(runs[b], runs[default])]
        if left == [default]:
            break
    return runs


def _seconds(runtime: Runtime, batches: Iterable[PackedBatch], most_seconds: float) -> float:
    """Of one pass over all batches; of its beginning where that takes `most_seconds` already."""
    started = time.perf_counter()
    for batch in batches:
        runtime.forward(batch)
        if time.perf_counter() - started > most_seconds:
            break
    return time.perf_counter() - started


def _batch(lengths: Iterable[int]) -> PackedBatch:
    cu_seqlens = np.cumsum([0, *lengths], dtype=np.int32)
    ids = np.zeros(cu_seqlens[-1], dtype=np.int32)  # what the tokens are does not change the time
    return PackedBatch(
        token_ids=ids,
        type_ids=ids,
        cu_seqlens=cu_seqlens,
        pair_sequences=np.arange(len(cu_seqlens) - 1, dtype=np.intp)[:, None],
    )


def _read(path: Path) -> dict[str, Tuning]:
    if not path.exists():
        return {}
    try:
        return msgspec.convert(read_json(path), dict[str, Tuning])
    except msgspec.ValidationError as error:
        raise ModelError(f"{path}: {error}") from error


def _store(path: Path, key: str, tuning: Tuning) -> None:
    """Add one measurement to those of other processors, atomically."""
    try:
        held = _read(path)
    except ModelError:
        held = {}
    content = json.dumps(msgspec.to_builtins(held | {key: tuning}), indent=2) + "\n"
    draft = path.with_name(f".{path.name}.{uuid4().hex}")  # other threads and processes write too
    draft.write_text(content, encoding="utf-8")
    draft.replace(path)
