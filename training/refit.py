"""Fits and measures another head on the encoder that is shipped: nothing is trained.

    python -m training.refit --data DATA

Version 5 was made so. The base's figures and the former version's stay as they are in
`results/ranking.json`; `--untrained` measures the base again (the shipped folder with the base's
upper layers).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tamis.engine.golden import GOLDEN_FILE
from tamis.engine.manifest import write_manifest
from training import practice
from training.across import across_figures, read_across
from training.base import DEFAULT_WORK, Floats
from training.build import NAME, PACKAGE_FOLDER, VERSION, Places
from training.card import write_card
from training.corpora import EVALUATION_SETS
from training.fit import calibration, fit_head, practice_ranking
from training.folder import UNFITTED, Head, write_head
from training.golden import renew_golden
from training.matching import COSINE, MAXSIM, PairScorer, logits
from training.measurement import (
    Candidates,
    cached_features,
    figures,
    load_candidates,
    ndcg_of_each_query,
    p_value,
)
from training.saving import RESULTS_FOLDER, save_result
from training.traps import keyword_trap_figures, obvious_figures, trap_figures

KIND = "float32"
Row = dict[str, Any]


def fit(places: Places) -> Head:
    """Fits scale and offset on the practice lists, and writes them into the folder."""
    folder = places.output
    lists = practice.practice_lists(places.data)
    candidates = practice.as_candidates(lists)
    features = cached_features(folder, KIND, candidates, places.work)
    head = fit_head(lists, features, UNFITTED)
    content = {
        "seed": practice.SEED,
        "lists": len(lists),
        "pairs": len(features),
        "head": asdict(head),
        "ranking": practice_ranking(lists, candidates, features, head),
        "calibration": calibration(lists, features, head),
    }
    save_result(places.results, "head", content)
    write_head(folder, head, name=NAME, version=VERSION, dtype="float32")
    (folder / GOLDEN_FILE).unlink(missing_ok=True)  # the manifest has it not
    write_manifest(folder)
    renew_golden(folder)
    return head


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
        candidates = load_candidates(places.data, name)
        found = set_figures(places.output, untrained, candidates, head, places.work)
        sets[name] = {**known.get(name, {}), **found}
    save_result(places.results, "ranking", {"arithmetic": KIND, "sets": sets})


def measure_others(places: Places, head: Head) -> None:
    """Across languages, and the keyword traps."""
    scorer = PairScorer(places.output, KIND, places.work)
    known = json.loads((places.results / "across.json").read_text(encoding="utf-8"))
    across = across_figures(read_across(scorer, places.data), head)
    save_result(places.results, "across", {"trained": across, "untrained": known["untrained"]})
    known = json.loads((places.results / "traps.json").read_text(encoding="utf-8"))
    content = {
        "dtype": KIND,
        "traps": trap_figures(scorer, head),
        "keyword_traps": keyword_trap_figures(scorer, head),
        "keyword_traps_untrained": known["keyword_traps_untrained"],
        "obvious": obvious_figures(scorer, head),
    }
    save_result(places.results, "traps", content)


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
    head = fit(places)
    if not options.without_ranking:
        measure_ranking(places, options.untrained, head)
    measure_others(places, head)
    write_card(places.output / "README.md", places.results)


if __name__ == "__main__":
    main()
