"""Fits and measures another head on the encoder that is shipped: nothing is trained.

    python -m training.refit --data DATA

Version 5 was made so. The base's figures and the former version's stay as they are in
`results/ranking.json`; `--untrained` (the shipped folder with the base's upper layers) measures the
base on the sets that have no figures of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training.build import PACKAGE_FOLDER, Places, finish, fit, measure_traps
from training.card import write_card
from training.data.corpora import EVALUATION_SETS
from training.measure.across import across_figures, read_across
from training.measure.matching import COSINE, MAXSIM, PairScorer, logits
from training.measure.measurement import (
    Candidates,
    cached_features,
    figures,
    load_candidates,
    ndcg_of_each_query,
    p_value,
)
from training.model.base import DEFAULT_WORK, Floats
from training.model.folder import Head
from training.saving import RESULTS_FOLDER, save_result

KIND = "float32"
Row = dict[str, Any]


def set_figures(
    folder: Path, untrained: Path | None, candidates: Candidates, head: Head, work: Path
) -> Row:
    """One set's row: what the shipped encoder does under the head, and the base if it is there."""
    features = cached_features(folder, KIND, candidates, work)
    scores: dict[str, Floats | None] = {
        "bm25": None,
        "maxsim": features[:, MAXSIM],
        "shipped": logits(features, head),
    }
    if untrained is not None:
        base = cached_features(untrained, KIND, candidates, work)
        scores |= {"pooled_cosine": base[:, COSINE], "untrained_maxsim": base[:, MAXSIM]}
    each = {kind: ndcg_of_each_query(candidates, values) for kind, values in scores.items()}
    return {
        "queries": len(candidates.run),
        "pairs": len(features),
        **{kind: figures(candidates, values) for kind, values in scores.items()},
        "p": {kind: p_value(each["shipped"], each[kind]) for kind in each if kind != "shipped"},
    }


def measure_ranking(places: Places, untrained: Path | None, head: Head) -> None:
    """All sets; what is not measured again stays as `ranking.json` has it."""
    path = places.results / "ranking.json"
    known: dict[str, Row] = json.loads(path.read_text(encoding="utf-8"))["sets"]
    sets: dict[str, Row] = {}
    for name in EVALUATION_SETS:
        before = known.get(name, {})
        base = None if "untrained_maxsim" in before else untrained
        candidates = load_candidates(places.data, name)
        sets[name] = before | set_figures(places.output, base, candidates, head, places.work)
    save_result(places.results, "ranking", {"arithmetic": KIND, "sets": sets})


def measure_others(places: Places, head: Head) -> None:
    """Across languages, and the keyword traps."""
    scorer = PairScorer(places.output, KIND, places.work)
    known = json.loads((places.results / "across.json").read_text(encoding="utf-8"))
    across = across_figures(read_across(scorer, places.data), head)
    save_result(places.results, "across", {"trained": across, "untrained": known["untrained"]})
    known = json.loads((places.results / "traps.json").read_text(encoding="utf-8"))
    measure_traps(places, scorer, head, known["keyword_traps_untrained"])


def main() -> None:
    """Parses the command line, fits, measures, writes the card."""
    parser = argparse.ArgumentParser(prog="training.refit", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/ and train/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    parser.add_argument("--output", type=Path, default=PACKAGE_FOLDER)
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER)
    parser.add_argument("--untrained", type=Path, help="a folder of the base, to measure it, too")
    parser.add_argument("--without-ranking", action="store_true", help="leave ranking.json alone")
    options = parser.parse_args()
    places = Places(options.data, options.work, options.output, options.results)
    head = fit(places, places.output)
    finish(places.output, head, KIND)
    if not options.without_ranking:
        measure_ranking(places, options.untrained, head)
    measure_others(places, head)
    write_card(places.output / "README.md", places.results)


if __name__ == "__main__":
    main()
