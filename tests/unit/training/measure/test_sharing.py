import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training.data.corpora import EvaluationSet
from training.measure.measurement import Candidates, cached_features, features_path
from training.measure.sharing import KIND, Family
from training.model.folder import IMPORTANCE, read_tensors, write_weights

N_SHARED = 6
DOCUMENTS = {"a": "Paris is the capital of France.", "b": "熊猫吃竹子。", "c": "x " * 40}
RUN = {"1": {"a": 1.0, "b": 0.5, "c": 0.1}, "2": {"b": 2.0, "a": 1.0}}
CANDIDATES = Candidates(
    EvaluationSet("small", {"1": "capital of France", "2": "熊猫吃什么？"}, DOCUMENTS, {}), RUN
)


@pytest.fixture(scope="module")
def other(narrow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow model with another last layer."""
    folder = tmp_path_factory.mktemp("other")
    for name in ("config.json", "tokenizer.json", "tamis.json"):
        shutil.copyfile(narrow / name, folder / name)
    tensors = read_tensors(narrow)
    tensors["encoder.layer.11.output.dense.weight"] *= 0.8
    tensors[IMPORTANCE] = np.zeros_like(tensors[IMPORTANCE])
    write_weights(folder, tensors, quantized=True)
    return folder


def test_models_measured_together_have_the_features_they_have_alone(
    narrow: Path, other: Path, tmp_path: Path
) -> None:
    folders = [narrow, other]

    Family(folders, N_SHARED).fill_cache(CANDIDATES, tmp_path / "together")

    for folder in folders:
        together = cached_features(folder, KIND, CANDIDATES, tmp_path / "together")
        alone = cached_features(folder, "float32", CANDIDATES, tmp_path / "alone")
        np.testing.assert_allclose(together, alone, atol=2e-3)


def test_features_of_other_texts_under_the_same_names_are_computed_anew(
    narrow: Path, tmp_path: Path
) -> None:
    other = replace(CANDIDATES.evaluation, documents={**DOCUMENTS, "a": "Berlin is large."})

    paths = {
        features_path(narrow, KIND, found, tmp_path)
        for found in (CANDIDATES, Candidates(other, RUN), Candidates(CANDIDATES.evaluation, RUN))
    }

    assert len(paths) == 2


def test_models_whose_lower_layers_differ_are_not_measured_together(
    narrow: Path, other: Path
) -> None:
    with pytest.raises(ValueError, match=r"encoder\.layer\.\d+\..* differs"):
        Family([narrow, other], 12)
