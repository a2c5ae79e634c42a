"""CTranslate2's other kernels, timed against those in force.

A process has one choice of them for good (`kernels.py`), so each other one is timed in a process of
its own: `python -m tamis.engine.ctranslate2.kernel_tuning TRIAL`, TRIAL being JSON. Whatever goes
wrong there leaves CTranslate2's own choice.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from tamis.engine.checkpoint import RUNTIME_FOLDER, Count
from tamis.engine.ctranslate2.kernels import (
    Kernels,
    environment_of,
    with_other_library,
    with_other_vectors,
)
from tamis.engine.ctranslate2.tuning import (
    CLEARLY_FASTER,
    Tuning,
    is_clearly_faster,
    keep_tuning,
    measure_speed,
    seeded_batches,
    warm_up,
)
from tamis.engine.memory import available_bytes

logger = logging.getLogger(__name__)

CONFIRMATIONS = 2
"""How often a winner is timed again, in turn with the kernels in force."""

_START_SECONDS = 30  # to start Python and read the weights, from a slow disk too
_MOST_PASSES = 4  # one to warm up, two that are timed, one for the machine's moods
_LOADED_SIZE = 2.0  # memory while weights are loaded and packed, by their size on disk: 1.85 seen


class Trial(msgspec.Struct, frozen=True):
    """What another process is to time.

    Attributes:
        folder: The converted model.
        threads: CPU threads of one forward pass.
        budget: Tokens of a forward pass.
        give_up_below: Tokens a second; slower kernels are not timed to the end.
    """

    folder: str
    dtype: str
    threads: Count
    reads_tokens: bool
    max_length: Count
    budget: Count
    give_up_below: float


def tune_kernels(
    tuning: Tuning,
    in_force: Kernels | None,
    folder: Path,
    *,
    dtype: str,
    threads: int,
    max_length: int,
    reads_tokens: bool,
) -> Tuning:
    """Time the kernels that this process does not have, and store which are to be taken.

    AVX-512 in place of AVX2 first, then the other library with the better of these.

    Args:
        tuning: What was measured in this process.
        in_force: The kernels of this process.
        folder: The converted model, where the result is stored.
        dtype: What it computes in.
        threads: CPU threads of one forward pass.
        max_length: Tokens a sequence may have.
        reads_tokens: Whether token states are wanted rather than the pooled first token.

    Returns:
        The same tuning where there was nothing to time, or it could not be.
    """
    reason = _reason_not_to(folder)
    if in_force is None:
        reason = "the environment has chosen, or there is nothing to choose from"
    if in_force is None or reason:
        logger.info("other kernels of ctranslate2 were not timed: %s", reason)
        return tuning
    trial = Trial(
        folder=str(folder.resolve()),
        dtype=dtype,
        threads=threads,
        reads_tokens=reads_tokens,
        max_length=max_length,
        budget=tuning.max_batch_tokens,
        give_up_below=tuning.speed / CLEARLY_FASTER,
    )
    most_seconds = _START_SECONDS + _MOST_PASSES * _pass_seconds(tuning, max_length)
    speeds: dict[Kernels, float] = {in_force: tuning.speed}
    best = in_force
    for vary in (with_other_vectors, with_other_library):
        best = _better(best, vary(best), speeds, trial, most_seconds)
    if len(speeds) == 1:
        return tuning
    best = _confirmed(best, in_force, speeds, trial, most_seconds)
    tuning = msgspec.structs.replace(tuning, kernels=best, kernels_tokens_per_second=speeds)
    keep_tuning(folder, tuning, dtype=dtype, threads=threads)
    logger.info(
        "ctranslate2's kernels on this processor: %s%s (%s tokens/s)",
        *(best, "" if best == in_force else " from the next start on"),
        ", ".join(f"{kernels}: {speed:,.0f}" for kernels, speed in speeds.items()),
    )
    return tuning


def run_trial(trial: Trial, kernels: Kernels, *, most_seconds: float) -> float:
    """Tokens a second with some kernels, in a process of its own.

    Raises:
        OSError: no process can be started.
        SubprocessError: it failed or took longer than `most_seconds`.
        ValueError: it answered something else than a figure.
    """
    if not sys.executable:
        raise OSError("sys.executable is not set, so no process can be started")
    finished = subprocess.run(  # noqa: S603 - this very Python on this very module
        # -P: nothing is imported from the folder that somebody happens to stand in
        [sys.executable, "-P", "-m", __name__, msgspec.json.encode(trial).decode()],
        env=environment_of(kernels, os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=most_seconds,
        check=False,
    )
    if finished.returncode:
        said = finished.stderr.decode(errors="replace").strip().splitlines()
        raise subprocess.SubprocessError(said[-1] if said else f"exit {finished.returncode}")
    return msgspec.json.decode(finished.stdout, type=float)


def main(arguments: list[str]) -> int:
    """Time what the one argument describes, and print tokens a second."""
    from tamis.engine.ctranslate2.runtime import CTranslate2Runtime  # not in the other process

    trial = msgspec.json.decode(arguments[0], type=Trial)
    runtime = CTranslate2Runtime(
        Path(trial.folder) / RUNTIME_FOLDER,
        device="cpu",
        dtype=trial.dtype,
        threads=trial.threads,
        max_batch_tokens=trial.budget,
        reads_tokens=trial.reads_tokens,
    )
    if not np.isfinite(warm_up(runtime, trial.max_length)).all():
        raise ArithmeticError("the outputs are not finite")
    speed = measure_speed(
        runtime, trial.budget, trial.max_length, give_up_below=trial.give_up_below
    )
    sys.stdout.write(f"{msgspec.json.encode(speed).decode()}\n")
    return 0


def _better(
    best: Kernels,
    other: Kernels | None,
    speeds: dict[Kernels, float],
    trial: Trial,
    most_seconds: float,
) -> Kernels:
    """The other kernels where they prove clearly faster; their speed goes into `speeds`."""
    if other is None:
        return best
    try:
        speeds[other] = run_trial(trial, other, most_seconds=most_seconds)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.info("kernels %s of ctranslate2 could not be timed: %s", other, error)
        return best
    return other if speeds[other] > CLEARLY_FASTER * speeds[best] else best


def _confirmed(
    best: Kernels,
    in_force: Kernels,
    speeds: dict[Kernels, float],
    trial: Trial,
    most_seconds: float,
) -> Kernels:
    """The best kernels if they win each time they are timed again, in turn with those in force."""
    if best == in_force:
        return best
    whole = msgspec.structs.replace(trial, give_up_below=0.0)
    runs: dict[Kernels, list[float]] = {in_force: [speeds[in_force]], best: [speeds[best]]}
    for _ in range(CONFIRMATIONS):
        for kernels, found in runs.items():
            try:
                found.append(run_trial(whole, kernels, most_seconds=most_seconds))
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                logger.info("%s of ctranslate2 could not be timed again: %s", kernels, error)
                return in_force
    for kernels, found in runs.items():
        speeds[kernels] = median(found)
    return best if is_clearly_faster(runs[best], runs[in_force]) else in_force


def _reason_not_to(folder: Path) -> str | None:
    """Why nothing is timed; None where it is."""
    wanted = _LOADED_SIZE * (folder / RUNTIME_FOLDER / "model.bin").stat().st_size
    left = available_bytes()
    if left is not None and left < wanted:
        return f"no memory to load the model twice ({wanted / 1e9:.1f} GB wanted)"
    return None


def _pass_seconds(tuning: Tuning, max_length: int) -> float:
    """How long a timed pass takes with the kernels of this process."""
    batches = seeded_batches(tuning.max_batch_tokens, max_length)
    return sum(len(batch.token_ids) for batch in batches) / tuning.speed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
