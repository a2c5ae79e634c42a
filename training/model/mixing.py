"""How far to go from the base's weights to the trained ones: in a straight line, part of the way.

    python -m training.model.mixing --data DATA

Weights between the two keep what the base knew of texts of other kinds (WiSE-FT, Wortsman et al.,
arXiv:2109.01903). Which part ranks best is looked at on the evaluation sets, which are there to
choose by, and on the keyword traps; `Plan.mixing` is what was chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from training.data.corpora import AIMED_SETS
from training.measure.matching import logits
from training.measure.measurement import (
    Candidates,
    cached_features,
    load_candidates,
    ndcg_of_each_query,
)
from training.measure.sharing import KIND, Family
from training.measure.traps import trap_candidates, traps_passed
from training.model.base import DEFAULT_WORK, Floats
from training.model.folder import UNFITTED, Head, read_tensors, write_alike
from training.model.student import Student
from training.model.train import Plan, new_student
from training.saving import RESULTS_FOLDER, save_result

SHARES = (0.5, 0.7, 1.0)
HEADS = tuple(Head(pooled_weight) for pooled_weight in (0.0, 0.1, 0.25, 0.5, 1.0))


def mixed_student(folder: Path, plan: Plan, checkpoint: Path, share: float) -> Student:
    """The student part of the way to a checkpoint.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is not the last one of the plan's training.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint} is not there: train first (make train)")
    student = new_student(folder, plan)
    content = torch.load(checkpoint, weights_only=True)
    if content["step"] != plan.n_steps:
        step, last = content["step"], plan.n_steps
        raise ValueError(f"{checkpoint} is of step {step}, not of the plan's last, {last}")
    trained = content["student"]
    state = {name: value.lerp(trained[name], share) for name, value in student.state_dict().items()}
    student.load_state_dict(state)
    return student


def write_shares(folder: Path, plan: Plan, checkpoint: Path, output: Path) -> dict[float, Path]:
    """A model folder for each share, float32 and with the head not fitted; the base's for none."""
    folders = {0.0: folder}
    for share in SHARES:
        after = mixed_student(folder, plan, checkpoint, share).tensors()
        folders[share] = output / str(share)
        tensors = {**read_tensors(folder), **after}
        name = f"share-{share}"
        write_alike(folders[share], folder, tensors, UNFITTED, name=name, version="0", rounded=None)
    return folders


def measure(
    folders: Mapping[float, Path], sets: Sequence[Candidates], traps: Candidates, work: Path
) -> dict[str, object]:
    """nDCG@10 on each set and their mean, and the traps whose answer is first, by share.

    A list has one value for each of `HEADS`.
    """
    table: dict[str, object] = {}
    for share, folder in folders.items():
        row: dict[str, object] = {}
        ndcg: list[Floats] = []
        for candidates in sets:
            features = cached_features(folder, KIND, candidates, work)
            found = [
                float(ndcg_of_each_query(candidates, logits(features, head)).mean())
                for head in HEADS
            ]
            row[candidates.evaluation.name] = np.round(found, 4).tolist()
            ndcg.append(np.array(found))
        row["mean"] = np.mean(ndcg, axis=0).round(4).tolist()
        features = cached_features(folder, KIND, traps, work)
        scores = np.stack([logits(features, head) for head in HEADS])
        row["traps"] = traps_passed(scores)
        table[str(share)] = row
        tqdm.write(f"{share} {row}")
    return table


def main() -> None:
    """Parses the command line, measures, saves."""
    parser = argparse.ArgumentParser(prog="training.model.mixing", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER)
    options = parser.parse_args()
    work: Path = options.work
    plan = Plan()
    checkpoint = work / "train" / "checkpoint.pt"
    folders = write_shares(work / "mini", plan, checkpoint, work / "mixing")
    sets = [load_candidates(options.data, name) for name in AIMED_SETS]
    traps = trap_candidates()
    family = Family(list(folders.values()), plan.first_layer)
    for candidates in [*sets, traps]:
        family.fill_cache(candidates, work)
    table = measure(folders, sets, traps, work)
    save_result(
        options.results, "mixing", {"heads": [asdict(head) for head in HEADS], "shares": table}
    )


if __name__ == "__main__":
    main()
