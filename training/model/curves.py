"""Draws the curves of a training."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt

KINDS = {
    "first": "all documents of a step",
    "first_by_cosine": "the same, by the pooled cosine alone",
    "first_of_short": "a query's own, short documents",
}


def plot_curves(curves: list[dict[str, float]], path: Path) -> None:
    """Loss, and how often the answer stands first; points are held-out queries."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    steps = [row["step"] for row in curves]
    held_out = [row for row in curves if "held_out_loss" in row]
    left.plot(steps, [row["loss"] for row in curves], label="training")
    places = [row["step"] for row in held_out]
    left.plot(places, [row["held_out_loss"] for row in held_out], "o-", label="held out")
    left.set(xlabel="step", ylabel="loss")
    left.legend()
    for color, (kind, label) in zip(("C0", "C2", "C3"), KINDS.items(), strict=True):
        right.plot(steps, [row[kind] for row in curves], color, alpha=0.6, label=label)
        if kind != "first_of_short":
            right.plot(places, [row[f"held_out_{kind}"] for row in held_out], color + "o")
    right.set(xlabel="step", ylabel="share of queries whose answer is first", ylim=(0, 1))
    right.legend(title="among (points: held out)", loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
