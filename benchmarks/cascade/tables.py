"""The result as the lines of docs/cascade.md."""

from collections.abc import Callable, Iterator
from typing import Any

Lines = Callable[[dict[str, Any]], Iterator[str]]


def quality_lines(measured: dict[str, Any]) -> Iterator[str]:
    """Means over the sets: a line for each cascade."""
    yield "| first stage | kept | margin | read by the second | CPU seconds | nDCG@10 | loss |"
    yield "|---|---|---|---|---|---|---|"
    everything = measured["mean_of_sets"][-1]["keep"]
    for row in measured["mean_of_sets"]:
        if row["keep"] == everything:
            continue  # alike for every first stage; below
        cells = (
            row["first"],
            row["keep"],
            row["margin"] or "–",
            f"{row['n_kept']:.1f}",
            f"{row['seconds']:.2f}",
            f"{row['ndcg_at_10']:.3f}",
            f"{row['loss']:+.3f} ± {row['loss_interval']:.3f}",
        )
        yield f"| {' | '.join(map(str, cells))} |"
    last = measured["mean_of_sets"][-1]
    seconds, ndcg = f"{last['seconds']:.2f}", f"{last['ndcg_at_10']:.3f}"
    yield f"| no cascade | all | – | {last['n_kept']:.1f} | {seconds} | {ndcg} | 0 |"


def large_lines(measured: dict[str, Any]) -> Iterator[str]:
    """Seconds before the large model: a line for each number kept."""
    large: dict[str, float] = measured["large"]
    names = list(dict.fromkeys(key.partition("|")[0] for key in large if "|" in key))
    yield f"| kept | {' | '.join(names)} |"
    yield "|---|" + "---|" * len(names)
    for keep in dict.fromkeys(key.partition("|")[2] for key in large if "|" in key):
        cells = [f"{large[f'{name}|{keep}']:.1f} s" for name in names]
        yield f"| {keep} | {' | '.join(cells)} |"
    alone = f"{large['all']:.1f} s"
    yield f"| all 50, no cascade | {' | '.join([alone] * len(names))} |"


def load_lines(measured: dict[str, Any]) -> Iterator[str]:
    """Two models under load: a line for each number of callers."""
    load: dict[str, Any] = measured["load"]
    yield "| callers | at once | in turn |"
    yield "|---|---|---|"
    for callers, ways in load.items():
        if isinstance(ways, dict):
            cells = [
                f"{way['requests_per_second_median']:.2f}/s, p50 {way['p50_seconds']:.1f} s"
                for way in ways.values()
            ]
            yield f"| {callers} | {' | '.join(cells)} |"
