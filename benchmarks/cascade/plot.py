"""The curve of quality against time, as a picture."""

from pathlib import Path
from typing import Any

from benchmarks.cascade.quality import RETRIEVAL
from benchmarks.cascade.stages import FIRST

PICTURE = Path(__file__).parents[2] / "docs" / "cascade.png"
LOOKS = (("#D55E00", "s"), ("#0072B2", "o"), ("#009E73", "^"))
"""Of the first stages: Okabe and Ito's colours for the colour-blind, and markers for grey."""
GREY = "#777777"


def draw(measured: dict[str, Any], path: Path = PICTURE) -> Path:
    """Draw the result's two parts side by side: with real weights, and the large model's time."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    mpl.rcParams |= {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    figure, (real, large) = plt.subplots(
        1, 2, figsize=(10.5, 4.8), width_ratios=(3, 2), layout="constrained"
    )
    _draw_real(real, measured["mean_of_sets"])
    _draw_large(large, measured["large"])
    figure.savefig(path, dpi=140)
    return path


def _draw_real(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Quality against time, a line a first stage; the numbers are documents kept."""
    everything = max(rows, key=lambda row: row["keep"])
    plain = [row for row in rows if not row["margin"] and row["keep"] < everything["keep"]]
    names = {stage.name: look for stage, look in zip(FIRST, LOOKS, strict=True)}
    for name, (colour, marker) in {**names, RETRIEVAL: (GREY, "x")}.items():
        line = [row for row in plain if row["first"] == name]
        label = "the order of retrieval" if name == RETRIEVAL else f"tamis-mini, {name}"
        axes.plot(
            [row["seconds"] for row in line],
            [row["ndcg_at_10"] for row in line],
            color=colour,
            marker=marker,
            linestyle="--" if name == RETRIEVAL else "-",
            label=label,
        )
    axes.plot(
        everything["seconds"], everything["ndcg_at_10"], "k*", markersize=14, label="no cascade"
    )
    axes.set(
        xlabel="CPU seconds a query, both cores together",
        ylabel="nDCG@10, mean of 4 sets",
        title="Real weights: the second stage is tamis-mini",
    )
    axes.legend(title="first stage", frameon=False, loc="lower right")


def _draw_large(axes: Any, large: dict[str, float]) -> None:
    """Seconds of the large model by documents kept, the first stage's share apart."""
    name = "tamis-mini float32"
    first = large[f"{name}|0"]
    kept = [int(key.partition("|")[2]) for key in large if key.startswith(f"{name}|")][1:]
    labels = [*map(str, kept), "all 50"]
    totals = [large[f"{name}|{keep}"] for keep in kept] + [large["all"]]
    starts = [first] * len(kept) + [0.0]
    seconds = [total - start for total, start in zip(totals, starts, strict=True)]
    axes.barh(labels, starts, color="#56B4E9", label="first stage, tamis-mini")
    axes.barh(labels, seconds, left=starts, color="#E69F00", label="large model")
    for label, total in zip(labels, totals, strict=True):
        axes.text(total + 0.05, label, f"{total:.1f}", va="center")
    axes.set(
        xlabel="CPU seconds a query of 50 documents",
        ylabel="documents kept",
        title="Large model, int8, random weights:\ntime only, its loss is unmeasured",
    )
    axes.legend(frameon=False, loc="lower right")
