import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training.data.corpora import EvaluationSet
from training.measure.measurement import Candidates, cached_features, features_path
from training.measure.sharing import KIND, Family
from training.model.folder import IMPORTANCE, read_tensors, write_weights

from tamis.engine.location import EMBEDDED_FOLDER

N_SHARED = 6
DOCUMENTS = {"a": "Paris is the capital of France.", "b": "熊猫吃竹子。", "c": "x " * 40}
RUN = {"1": {"a": 1.0, "b": 0.5, "c": 0.1}, "2": {"b": 2.0, "a": 1.0}}
CANDIDATES = Candidates(
    EvaluationSet("small", {"1": "capital of France", "2": "熊猫吃什么？"}, DOCUMENTS, {}), RUN
)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with another last layer."""
    folder = tmp_path_factory.mktemp("other")
    for name in ("config.json", "tokenizer.json", "tamis.json"):
        shutil.copyfile(EMBEDDED_FOLDER / name, folder / name)
    tensors = read_tensors(EMBEDDED_FOLDER)
    tensors["encoder.layer.11.output.dense.weight"] *= 0.8
    tensors[IMPORTANCE] = np.zeros_like(tensors[IMPORTANCE])
    write_weights(folder, tensors, quantized=True)
    return folder


def test_models_measured_together_have_the_features_they_have_alone(
    other: Path, tmp_path: Path
) -> None:
    folders = [EMBEDDED_FOLDER, other]

    Family(folders, N_SHARED).fill_cache(CANDIDATES, tmp_path / "together")

    for folder in folders:
        together = cached_features(folder, KIND, CANDIDATES, tmp_path / "together")
        alone = cached_features(folder, "float32", CANDIDATES, tmp_path / "alone")
        np.testing.assert_allclose(together, alone, atol=2e-3)


def test_features_of_other_texts_under_the_same_names_are_computed_anew(tmp_path: Path) -> None:
    other = replace(CANDIDATES.evaluation, documents={**DOCUMENTS, "a": "Berlin is large."})

    paths = {
        features_path(EMBEDDED_FOLDER, KIND, found, tmp_path)
        for found in (CANDIDATES, Candidates(other, RUN), Candidates(CANDIDATES.evaluation, RUN))
    }

    assert len(paths) == 2


def test_models_whose_lower_layers_differ_are_not_measured_together(other: Path) -> None:
    with pytest.raises(ValueError, match=r"encoder\.layer\.\d+\..* differs"):
        Family([EMBEDDED_FOLDER, other], 12)
