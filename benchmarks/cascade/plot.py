"""The curve of quality against time, as a picture."""

from pathlib import Path
from typing import Any

PICTURE = Path(__file__).parents[2] / "docs" / "cascade.png"
# Okabe and Ito's colours, which the colour-blind tell apart; markers tell them apart in grey
LOOKS = {
    "4 of 12 layers": ("#D55E00", "s"),
    "8 of 12 layers": ("#E69F00", "D"),
    "64 tokens": ("#0072B2", "o"),
    "128 tokens": ("#56B4E9", "^"),
}


def draw(measured: dict[str, Any], path: Path = PICTURE) -> Path:
    """Draw the result's two parts side by side: with real weights, and the large model's time."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    mpl.rcParams |= {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    figure, (real, large) = pyplot.subplots(
        1, 2, figsize=(10, 4.6), width_ratios=(3, 2), layout="constrained"
    )
    _draw_real(real, measured)
    _draw_large(large, measured["large"])
    figure.savefig(path, dpi=150)
    return path


def _draw_real(axes: Any, measured: dict[str, Any]) -> None:
    means = measured["mean_of_sets"]
    for name, (colour, marker) in LOOKS.items():
        rows = [row for row in means if row["first"] == name and not row["margin"]]
        axes.plot(
            [row["seconds"] for row in rows],
            [row["ndcg_at_10"] for row in rows],
            color=colour,
            marker=marker,
            label=f"first: {name}",
        )
    axes.set_xlabel("seconds a query")
    axes.set_ylabel("nDCG@10")
    axes.legend(frameon=False)


def _draw_large(axes: Any, large: dict[str, Any]) -> None:
    raise NotImplementedError(large)
