"""Trains and exports a toy: the whole way from rows to a folder that tamis loads.

    python -m training.smoke OUTPUT

It goes on from the embedded model for a few steps, with a few rows of XQuAD (`tests/data/xquad`).
Its weights are good for nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from tamis.engine.location import EMBEDDED_FOLDER
from training.model.curves import plot_curves
from training.model.folder import (
    PROJECTION,
    add_learned,
    read_head,
    read_tensors,
    write_alike,
    write_head,
)
from training.model.mixing import mixed_student
from training.model.projection import ProjectionPlan, learn
from training.model.rounding import rounded
from training.model.train import Plan, train

DATA = Path(__file__).parent.parent / "tests" / "data" / "xquad"
NAME = {"name": "tamis-toy", "version": "0"}
TO_PROJECT = ProjectionPlan(n_steps=3, n_groups=1, n_translated=60, with_packages=False)
PLAN = replace(Plan(), n_steps=4, n_warm_up=1, first_layer=10, with_teacher=False)


def smoke(output: Path) -> None:
    """Trains, and writes the model folder, the curves and what it worked with to `output`."""
    trainer = train(EMBEDDED_FOLDER, DATA, output / "work", PLAN)
    plot_curves(trainer.curves, output / "training.png")
    student = mixed_student(EMBEDDED_FOLDER, PLAN, trainer.checkpoint, PLAN.mixing)
    after = student.tensors()
    before = read_tensors(EMBEDDED_FOLDER)
    del before[PROJECTION]  # of other states; the toy learns its own
    write_alike(
        output / "model",
        EMBEDDED_FOLDER,
        {**before, **after},
        read_head(EMBEDDED_FOLDER),
        **NAME,
        rounded=rounded(student, trainer.material.documents["passage"], after),
    )
    learned = learn(output / "model", DATA, output / "work", TO_PROJECT)
    add_learned(output / "model", learned.tensors())
    write_head(output / "model", read_head(EMBEDDED_FOLDER), **NAME, dtype="float32")


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(prog="training.smoke", description=__doc__)
    parser.add_argument("output", type=Path)
    smoke(parser.parse_args().output)


if __name__ == "__main__":
    main()
