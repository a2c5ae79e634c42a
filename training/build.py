"""Builds the embedded model, from the base's file to the model card.

    python -m training.build --data DATA

Every long step keeps its result in the work folder; run again, it goes on from there.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tamis.engine.golden import GOLDEN_FILE
from tamis.engine.manifest import write_manifest
from training import practice, vocabulary
from training.base import Base, fetch, read_base
from training.card import write_card
from training.corpora import EVALUATION_SETS
from training.fit import calibration, choose_weight, fit_head, ranking_by_weight
from training.folder import UNFITTED, Head, write_folder, write_head
from training.machine import describe_machine
from training.matching import PairScorer
from training.measurement import (
    Candidates,
    cached_features,
    load_candidates,
    p_value,
    variant_figures,
)
from training.parity import DEFAULT_WORK, export_full_base
from training.precision import batch_noise, choose_dtype, compare, tokens_per_second
from training.traps import trap_figures

NAME = "tamis-mini"
VERSION = "1"
MODEL_FILES = ("config.json", "tokenizer.json", "model.safetensors", "tamis.json")
PACKAGE_FOLDER = Path(__file__).parent.parent / "src" / "tamis" / "models" / "mini"
RESULTS_FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are read and written."""

    data: Path
    work: Path
    output: Path
    results: Path

    @property
    def full(self) -> Path:
        """The untrimmed base as a model folder."""
        return self.work / "full"

    @property
    def mini(self) -> Path:
        """The trimmed model, before it is exported."""
        return self.work / "mini"


def build(places: Places) -> None:
    """Trims, fits, measures, exports: one step after the other."""
    export_full_base(places.full, places.work)
    base = read_base(fetch(places.work))
    trimmed = trim_vocabulary(base, places)
    head = fit(places)
    sets = {name: load_candidates(places.data, name) for name in EVALUATION_SETS}
    measure_ranking(places, sets, head)
    save(places, "vocabulary", vocabulary_figures(base, trimmed, places, sets))
    dtype = measure_precision(places, sets, head)
    scorer = PairScorer(places.mini, dtype, places.work)
    save(places, "traps", {"dtype": dtype, "traps": trap_figures(scorer, head)})
    export(places, head, dtype)


def trim_vocabulary(base: Base, places: Places) -> Base:
    """Chooses the pieces and writes the trimmed model, its head not fitted yet."""
    ids = vocabulary.choose(base, places.data, vocabulary.N_PIECES)
    trimmed = vocabulary.trim(base, ids)
    write_folder(
        places.mini, trimmed, UNFITTED, name=NAME, version=VERSION, dtype="float32", quantized=True
    )
    return trimmed


def vocabulary_figures(
    base: Base, trimmed: Base, places: Places, sets: dict[str, Candidates]
) -> dict[str, object]:
    """What trimming costs, by language on held-out rows and on the evaluation texts."""
    held_out = {
        language: texts.held_out[:300]
        for language, texts in vocabulary.training_texts(places.data).items()
    }
    evaluation = {
        name: [*found.evaluation.queries.values(), *list(found.evaluation.documents.values())[:500]]
        for name, found in sets.items()
    }
    return {
        "pieces_full": len(base.pieces),
        "pieces": len(trimmed.pieces),
        "always_kept": sum(map(vocabulary.is_always_kept, base.pieces)),
        "held_out_rows": {
            name: vocabulary.segmentation_figures(base, trimmed, texts)
            for name, texts in held_out.items()
        },
        "evaluation_texts": {
            name: vocabulary.segmentation_figures(base, trimmed, texts)
            for name, texts in evaluation.items()
        },
        "languages_left_out": vocabulary.word_list_increase(base, trimmed),
    }


def fit(places: Places) -> Head:
    """Chooses the head on the practice lists."""
    lists = practice.practice_lists(places.data)
    candidates = practice.as_candidates(lists)
    features = cached_features(places.mini, "float32", candidates, places.work)
    table = ranking_by_weight(lists, candidates, features)
    head = fit_head(lists, features, choose_weight(table))
    content = {
        "seed": practice.SEED,
        "lists": len(lists),
        "pairs": len(features),
        "head": asdict(head),
        "ndcg_by_pooled_weight": table,
        "calibration": calibration(lists, features, head),
    }
    save(places, "head", content)
    return head


def measure_ranking(places: Places, sets: dict[str, Candidates], head: Head) -> None:
    """The shipped files, float32, all queries: BM25, cosine, MaxSim, blend."""
    table: dict[str, object] = {}
    for name, candidates in sets.items():
        features = cached_features(places.mini, "float32", candidates, places.work)
        table[name] = {
            "queries": len(candidates.run),
            "pairs": len(features),
            **variant_figures(candidates, features, head.pooled_weight),
            "p_against_bm25": p_value(candidates, features, head.pooled_weight, None),
            "p_against_cosine": p_value(candidates, features, head.pooled_weight, 1),
        }
    save(places, "ranking", {"pooled_weight": head.pooled_weight, "sets": table})


def measure_precision(places: Places, sets: dict[str, Candidates], head: Head) -> str:
    """Compares the arithmetics and returns the one to ship."""
    comparisons = {
        name: compare(places.full, places.mini, candidates, head, places.work)
        for name, candidates in sets.items()
    }
    probe = sets["scifact"]
    noise = {
        kind: batch_noise(places.mini, kind, probe, head, places.work)
        for kind in ("float32", "int8")
    }
    dtype = choose_dtype(comparisons, noise["int8"]["largest"])
    content = {
        "dtype": dtype,
        "sets": comparisons,
        "batch_noise_logits": noise,
        "tokens_per_second": {
            kind: tokens_per_second(places.mini, kind, probe, places.work)
            for kind in ("float32", "int8")
        },
        "note": "speed on a machine that others used at the time: the ratio alone means something",
    }
    save(places, "precision", content)
    return dtype


def export(places: Places, head: Head, dtype: str) -> None:
    """Puts the final files into the package, with their card."""
    places.output.mkdir(parents=True, exist_ok=True)
    for name in MODEL_FILES:
        shutil.copyfile(places.mini / name, places.output / name)
    write_head(places.output, head, name=NAME, version=VERSION, dtype=dtype)
    (places.output / GOLDEN_FILE).unlink(missing_ok=True)  # of the model before it
    write_manifest(places.output)
    save(places, "files", file_sizes(places.output))
    write_card(places.output / "README.md", places.results)


def file_sizes(folder: Path) -> dict[str, object]:
    """Bytes of each file, as it is and as a wheel packs it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in MODEL_FILES:
            archive.write(folder / name, name)
        files = {
            entry.filename: {"bytes": entry.file_size, "packed_bytes": entry.compress_size}
            for entry in archive.infolist()
        }
    return {"files": files, "packed_bytes": len(packed.getvalue())}


def save(places: Places, name: str, content: Mapping[str, object]) -> None:
    """Writes one result file, with the machine it comes from."""
    places.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": describe_machine(), **content}, indent=2, ensure_ascii=False)
    (places.results / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Parses the command line and builds."""
    parser = argparse.ArgumentParser(prog="training.build", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/ and train/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    parser.add_argument("--output", type=Path, default=PACKAGE_FOLDER)
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER)
    options = parser.parse_args()
    build(Places(options.data, options.work, options.output, options.results))


if __name__ == "__main__":
    main()
