"""Builds the embedded model, from the base's file to the model card.

    python -m training.build --data DATA

States, training and features of pairs are kept in the work folder: a second run goes on from there.
"""

from __future__ import annotations

import argparse
import io
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tamis.engine.golden import GOLDEN_FILE
from tamis.engine.manifest import write_manifest
from training.card import write_card
from training.data import practice
from training.data.corpora import EVALUATION_SETS, DataError, check_data
from training.measure.across import across_figures, read_across
from training.measure.matching import PairScorer
from training.measure.measurement import (
    Candidates,
    cached_features,
    figures,
    load_candidates,
    ndcg_of_each_query,
    p_value,
    variants,
)
from training.measure.precision import batch_noise, choose_dtype, compare, tokens_per_second
from training.measure.sharing import KIND, Family
from training.measure.traps import keyword_trap_figures, obvious_figures, trap_figures
from training.model import vocabulary
from training.model.base import DEFAULT_WORK, Base, Floats, fetch, read_base
from training.model.curves import plot_curves
from training.model.fit import calibration, fit_head, practice_ranking
from training.model.folder import (
    UNFITTED,
    Head,
    add_learned,
    read_tensors,
    write_alike,
    write_folder,
    write_head,
)
from training.model.golden import renew_golden
from training.model.mixing import mixed_student
from training.model.projection import ProjectionPlan, learn
from training.model.rounding import rounded
from training.model.train import Plan, train
from training.saving import RESULTS_FOLDER, save_result

NAME = "tamis-mini"
VERSION = "5"
MODEL_FILES = ("config.json", "tokenizer.json", "model.safetensors", "tamis.json")
PACKAGE_FOLDER = Path(__file__).parent.parent / "src" / "tamis" / "models" / "mini"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are read and written."""

    data: Path
    work: Path
    output: Path
    results: Path

    @property
    def untrained(self) -> Path:
        """The base with its trimmed vocabulary."""
        return self.work / "mini"

    @property
    def exact(self) -> Path:
        """The trained model with its weights in float32."""
        return self.work / "trained-float32"

    @property
    def trained(self) -> Path:
        """The trained model as it is shipped, before it is exported."""
        return self.work / "trained"


def build(places: Places, base: Base, plan: Plan, projection: ProjectionPlan) -> None:
    """Trims, trains, projects, fits, measures, exports: one step after the other."""
    trimmed = trim_vocabulary(base, places)
    train_weights(places, plan)
    learn_projection(places, projection)
    head = fit(places, places.trained)
    sets = {name: load_candidates(places.data, name) for name in EVALUATION_SETS}
    family = Family([places.untrained, places.exact, places.trained], plan.first_layer)
    for candidates in sets.values():
        family.fill_cache(candidates, places.work)
    measure_ranking(places, sets, head)
    save(places, "vocabulary", vocabulary_figures(base, trimmed, places, sets))
    dtype = measure_precision(places, sets, head)
    scorer = PairScorer(places.trained, dtype, places.work)
    untrained = PairScorer(places.untrained, dtype, places.work)
    across = {
        "trained": across_figures(read_across(scorer, places.data), head),
        "untrained": across_figures(read_across(untrained, places.data), head),
    }
    save(places, "across", across)
    measure_traps(places, scorer, head, keyword_trap_figures(untrained, head))
    export(places, head, dtype)


def trim_vocabulary(base: Base, places: Places) -> Base:
    """Chooses the pieces and writes the trimmed model, its head not fitted yet."""
    ids = vocabulary.choose(base, places.data, vocabulary.N_PIECES)
    trimmed = vocabulary.trim(base, ids)
    write_folder(places.untrained, trimmed, UNFITTED, name=NAME, version=VERSION, quantized=True)
    return trimmed


def train_weights(places: Places, plan: Plan) -> None:
    """Trains, and writes the trained weights in float32 and as they are shipped."""
    trainer = train(places.untrained, places.data, places.work, plan)
    student = mixed_student(places.untrained, plan, trainer.checkpoint, plan.mixing)
    after = student.tensors()
    tensors = {**read_tensors(places.untrained), **after}
    rows = rounded(student, trainer.material.documents["passage"], after)
    for folder, kept in ((places.exact, None), (places.trained, rows)):
        write_alike(
            folder, places.untrained, tensors, UNFITTED, name=NAME, version=VERSION, rounded=kept
        )
    save(places, "training", {"plan": asdict(plan), "curves": trainer.curves})
    plot_curves(trainer.curves, places.results / "training.png")


def learn_projection(places: Places, plan: ProjectionPlan) -> None:
    """Learns from the rounded weights what the head does with their states; for both folders."""
    learned = learn(places.trained, places.data, places.work, plan)
    for folder in (places.exact, places.trained):
        add_learned(folder, learned.tensors())
    content = {
        "plan": asdict(plan),
        "questions": learned.n_questions,
        "losses": learned.losses,
    }
    save(places, "projection", content)


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


def fit(places: Places, folder: Path) -> Head:
    """Fits scale and offset of a folder's model on lists of held-out rows."""
    lists = practice.practice_lists(places.data)
    candidates = practice.as_candidates(lists)
    features = cached_features(folder, "float32", candidates, places.work)
    head = fit_head(lists, features, UNFITTED)
    content = {
        "seed": practice.SEED,
        "lists": len(lists),
        "pairs": len(features),
        "head": asdict(head),
        "ranking": practice_ranking(lists, candidates, features, head),
        "calibration": calibration(lists, features, head),
    }
    save(places, "head", content)
    return head


def measure_ranking(places: Places, sets: dict[str, Candidates], head: Head) -> None:
    """The shipped files, all queries, BM25 and the base, and the lead over the better baseline."""
    table: dict[str, dict[str, object]] = {}
    each: dict[str, dict[str, Floats]] = {}
    for name, candidates in sets.items():
        features = [
            cached_features(folder, KIND, candidates, places.work)
            for folder in (places.untrained, places.trained)
        ]
        scores = variants(features[0], features[1], head)
        each[name] = {kind: ndcg_of_each_query(candidates, s) for kind, s in scores.items()}
        table[name] = {
            "queries": len(candidates.run),
            "pairs": len(features[0]),
            **{kind: figures(candidates, values) for kind, values in scores.items()},
            "p": {
                kind: p_value(each[name]["shipped"], values)
                for kind, values in each[name].items()
                if kind != "shipped"
            },
        }
    save(places, "ranking", {"arithmetic": KIND, "sets": table, "leads": _leads(each)})


def _leads(each: dict[str, dict[str, Floats]]) -> dict[str, float]:
    """By set: the shipped model's nDCG@10 less that of the better of BM25 and cosine."""
    leads: dict[str, float] = {}
    for name, values in each.items():
        better = max(float(values[kind].mean()) for kind in ("bm25", "pooled_cosine"))
        leads[name] = round(float(values["shipped"].mean()) - better, 4)
    return leads


def measure_traps(places: Places, scorer: PairScorer, head: Head, untrained: object) -> None:
    """The shipped model's keyword traps and obvious pairs, and the base's keyword traps."""
    content = {
        "dtype": scorer.compute_type,
        "traps": trap_figures(scorer, head),
        "keyword_traps": keyword_trap_figures(scorer, head),
        "keyword_traps_untrained": untrained,
        "obvious": obvious_figures(scorer, head),
    }
    save(places, "traps", content)


def measure_precision(places: Places, sets: dict[str, Candidates], head: Head) -> str:
    """Compares the arithmetics and returns the one to ship."""
    comparisons = {
        name: compare(places.exact, places.trained, candidates, head, places.work)
        for name, candidates in sets.items()
    }
    probe = sets["scifact"]
    noise = {
        kind: batch_noise(places.trained, kind, probe, head, places.work)
        for kind in ("float32", "int8")
    }
    dtype = choose_dtype(comparisons, noise["int8"]["largest"])
    content = {
        "dtype": dtype,
        "products": KIND,
        "version": VERSION,
        "sets": comparisons,
        "batch_noise_logits": noise,
        "tokens_per_second": {
            kind: tokens_per_second(places.trained, kind, probe, places.work)
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
        shutil.copyfile(places.trained / name, places.output / name)
    finish(places.output, head, dtype)
    save(places, "files", file_sizes(places.output))
    write_card(places.output / "README.md", places.results)


def finish(folder: Path, head: Head, dtype: str) -> None:
    """Writes head, manifest and golden logits into the folder of the model."""
    write_head(folder, head, name=NAME, version=VERSION, dtype=dtype)
    (folder / GOLDEN_FILE).unlink(missing_ok=True)  # the manifest has it not
    write_manifest(folder)
    renew_golden(folder)


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
    """Writes one result file."""
    save_result(places.results, name, content)


def main() -> None:
    """Parses the command line and builds."""
    parser = argparse.ArgumentParser(prog="training.build", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/ and train/")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    parser.add_argument("--output", type=Path, default=PACKAGE_FOLDER)
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER)
    options = parser.parse_args()
    try:
        check_data(options.data)  # before anything is fetched
    except DataError as error:
        parser.error(str(error))
    places = Places(options.data, options.work, options.output, options.results)
    build(places, read_base(fetch(options.work)), Plan(), ProjectionPlan())


if __name__ == "__main__":
    main()
