"""The way of the embedded model, with a base of two layers, a few texts and no teacher."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from training.build import MODEL_FILES, Places, build
from training.card import RESULTS, write_card
from training.data import practice
from training.data.corpora import (
    EVALUATION_SETS,
    JUDGED_CANDIDATES,
    TRAINING_FILES,
    check_data,
)
from training.data.texts import HELD_OUT_ELSEWHERE, is_one_in
from training.measure.matching import PairScorer, logits
from training.model import vocabulary
from training.model.base import Base
from training.model.folder import read_head
from training.model.projection import ProjectionPlan
from training.model.train import Plan
from training.smoke import DATA

from tamis import Reranker
from tamis.engine.device import usable_cores
from tamis.engine.location import EMBEDDED_FOLDER
from tamis.engine.manifest import verify_manifest

pytestmark = pytest.mark.timeout(600)

Row = dict[str, str]

ROOT = Path(__file__).parents[2]

KEPT = ("states", "features", "ct2", "train", "projection")
PROJECTION = ProjectionPlan(
    n_steps=2, n_groups=1, n_questions=40, n_translated=20, with_packages=False
)
PLAN = replace(Plan(), n_steps=2, n_warm_up=1, first_layer=1, with_teacher=False)
N_PIECES = 30_000
N_PIECES_KEPT = 20_000
HIDDEN, INTERMEDIATE, N_LAYERS, N_POSITIONS, N_TYPES = 32, 64, 2, 514, 2
FREQUENT_WORD = 1e-4


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Where a model was built."""
    torch.set_num_threads(usable_cores())  # as the build's own golden logits leave it
    root = tmp_path_factory.mktemp("build")
    found = Places(root / "data", root / "work", root / "output", root / "results")
    write_data(found.data)
    check_data(found.data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "N_PIECES", N_PIECES_KEPT)
        patch.setattr(vocabulary, "RAREST_WORD", FREQUENT_WORD)
        patch.setattr(vocabulary, "COMMON_WORD", FREQUENT_WORD)
        # else BM25's best would be all of a handful of passages, and none is left to chance
        patch.setattr(practice, "N_LEXICAL", 1)
        build(found, tiny_base(), PLAN, PROJECTION)
        yield found


def tiny_base() -> Base:
    """A seeded random encoder behind the first pieces of the real vocabulary."""
    model = json.loads((EMBEDDED_FOLDER / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    pieces = [*model["vocab"][:N_PIECES], model["vocab"][-1]]
    chance = np.random.default_rng(1)
    tensors = {
        name: chance.normal(1 if name.endswith("LayerNorm.weight") else 0, 0.1, shape).astype("f4")
        for name, shape in shapes(len(pieces)).items()
    }
    return Base(
        hidden=HIDDEN,
        n_layers=N_LAYERS,
        n_heads=4,
        intermediate=INTERMEDIATE,
        n_positions=N_POSITIONS,
        n_types=N_TYPES,
        pieces=[piece for piece, _ in pieces],
        scores=[score for _, score in pieces],
        tensors=tensors,
    )


def shapes(n_pieces: int) -> dict[str, tuple[int, ...]]:
    """Of an encoder's tensors, by name."""
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (n_pieces, HIDDEN),
        "embeddings.position_embeddings.weight": (N_POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (N_TYPES, HIDDEN),
    }
    linear = {
        **{f"attention.self.{name}": (HIDDEN, HIDDEN) for name in ("query", "key", "value")},
        "attention.output.dense": (HIDDEN, HIDDEN),
        "intermediate.dense": (INTERMEDIATE, HIDDEN),
        "output.dense": (HIDDEN, INTERMEDIATE),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(N_LAYERS):
        layer = f"encoder.layer.{number}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name, shape in linear.items():
            found[f"{layer}.{name}.weight"] = shape
            found[f"{layer}.{name}.bias"] = shape[:1]
    for name in norms:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (HIDDEN,)
    return found


def write_data(data: Path) -> None:
    """All files that a build reads, out of the slice of XQuAD that the tests carry.

    Files of languages that the slice has not have the texts of one that it has.
    """
    for folder in ("train", *(f"eval/{name}" for name in EVALUATION_SETS)):
        (data / folder).mkdir(parents=True)
    for name, language in TRAINING_FILES.items():
        rows = slice_of("zh-Hant" if name == "drcd" else language)
        if not name.startswith("xquad"):
            groups = dict.fromkeys(row["positive"] for row in rows)
            groups = dict(zip(groups, group_names(name), strict=False))
            rows = [row | own_article(name, groups[row["positive"]]) for row in rows]
        write_lines(data / "train" / f"{name}.jsonl.gz", rows)
    for name in EVALUATION_SETS:
        write_evaluation_set(data / "eval" / name)


def own_article(name: str, group: str) -> Row:
    """What is another in a row of another file; of pubmedqa rows are held out, not articles."""
    return {"id": group, "group": name} if name == "pubmedqa" else {"group": group}


def slice_of(language: str) -> list[Row]:
    """The slice's rows in a language, or in one that stands for it."""
    stands = {"ja": "zh", "zh": "zh", "zh-Hant": "zh", "de": "de", "ar": "ar"}.get(language, "en")
    content = (DATA / "train" / f"xquad-{stands}.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(content).decode().splitlines()]
    return [row | {"lang": language} for row in rows]


def group_names(name: str) -> Iterator[str]:
    """Names of articles; every other one is held out."""
    for number in count():
        wanted = number % 2 == 0
        yield next(
            found
            for found in (f"{name}-{number}-{i}" for i in count())
            if is_one_in(HELD_OUT_ELSEWHERE, found) == wanted
        )


def write_evaluation_set(folder: Path) -> None:
    """English questions; all passages are judged where a set brings its own candidates."""
    rows = slice_of("en")
    passages = list(dict.fromkeys(row["positive"] for row in rows))
    documents = [{"_id": str(n), "text": text} for n, text in enumerate(passages)]
    write_lines(folder / "corpus.jsonl.gz", documents)
    queries = [{"_id": row["id"], "text": row["query"]} for row in rows]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), encoding="utf-8")
    judged = ["query-id\tcorpus-id\tscore"]
    for row in rows:
        for number, text in enumerate(passages):
            if text == row["positive"] or folder.name in JUDGED_CANDIDATES:
                judged.append(f"{row['id']}\t{number}\t{int(text == row['positive'])}")
    (folder / "qrels.tsv").write_text("\n".join(judged), encoding="utf-8")


def write_lines(path: Path, rows: list[Row]) -> None:
    """Gzipped JSON lines."""
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


@pytest.mark.slow
def test_what_is_built_scores_as_the_measured_features_do(places: Places) -> None:
    assert verify_manifest(places.output)
    asked, documents = (
        "what is the capital?",
        ["Warsaw", "the capital is Warsaw", "华沙", "a" * 999],
    )
    scorer = PairScorer(places.output, "float32", places.work)
    pairs = [(0, number) for number in range(len(documents))]
    features = scorer.features([asked], documents, pairs, "documents")

    with Reranker(str(places.output), dtype="float32") as model:
        found = model.score([(asked, document) for document in documents])

    wanted = logits(features, read_head(places.output))
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert np.ptp(found) > 0.01


@pytest.mark.slow
def test_every_result_is_saved_and_the_card_filled_from_them(places: Places) -> None:
    saved = {path.stem: json.loads(path.read_text()) for path in places.results.glob("*.json")}
    assert saved.keys() == set(RESULTS)
    assert saved["vocabulary"]["pieces"] == N_PIECES_KEPT
    assert saved["training"]["plan"]["n_steps"] == PLAN.n_steps
    assert {name: row["queries"] for name, row in saved["ranking"]["sets"].items()} == (
        dict.fromkeys(EVALUATION_SETS, len(slice_of("en")))
    )
    write_card(places.results / "card.md", places.results)
    card = (places.results / "card.md").read_text(encoding="utf-8")
    assert (places.output / "README.md").read_text(encoding="utf-8") == card
    assert (places.results / "training.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_second_build_computes_no_states_steps_or_features_again(places: Places) -> None:
    root = places.data.parent
    again = replace(places, output=root / "output again", results=root / "results again")
    kept = written_at(places)

    build(again, tiny_base(), PLAN, PROJECTION)

    assert {path.relative_to(places.work).parts[0] for path in kept} == set(KEPT)
    assert written_at(places) == kept
    for name in MODEL_FILES:
        assert (again.output / name).read_bytes() == (places.output / name).read_bytes()


def written_at(places: Places) -> dict[Path, int]:
    """When what takes long was written, by file."""
    found = [path for folder in KEPT for path in (places.work / folder).rglob("*.*")]
    return {path: path.stat().st_mtime_ns for path in found}


def test_data_that_is_missing_is_named_before_anything_is_fetched(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.build", "--data", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "has no train/cmrc2018.jsonl.gz, train/drcd.jsonl.gz" in done.stderr
    assert "Traceback" not in done.stderr
