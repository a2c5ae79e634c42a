import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.conversion import convert, stored_dtype
from tamis.engine.loading import load_model
from tamis.engine.manifest import verify_manifest
from tamis.errors import ChecksumMismatchError, IncompleteModelError, RuntimeUnavailableError
from tamis.settings import DtypeName, ModelSettings
from tests.tiny_models import edit_json, quantize_rows

QUERY, DOCUMENTS = "what is a panda?", ["hi", "the giant panda is a bear species", ""]


def logits_of(folder: Path, cache_dir: Path, *, dtype: DtypeName = "auto") -> list[float]:
    """The logits of a few pairs, by a folder's model."""
    model = load_model(ModelSettings(name=str(folder), cache_dir=cache_dir, dtype=dtype))
    return model.backend.forward(model.tokenizer.encode(QUERY, DOCUMENTS)).tolist()


@pytest.fixture(params=["xlm-roberta", "bert", "maxsim"])
def source(
    request: pytest.FixtureRequest,
    tiny_classifiers: dict[str, Path],
    tiny_maxsim: Path,
    tmp_path: Path,
) -> Path:
    """A copy of a model of each kind."""
    original = tiny_maxsim if request.param == "maxsim" else tiny_classifiers[request.param]
    return Path(shutil.copytree(original, tmp_path / f"source-{request.param}"))


def test_a_converted_folder_needs_its_source_no_more(
    source: Path, tmp_path: Path, cache_dir: Path
) -> None:
    expected = logits_of(source, cache_dir)
    name = read_checkpoint(source).name

    output = convert(read_checkpoint(source), tmp_path / "out" / "made", dtype="float32")
    shutil.rmtree(source)
    shutil.rmtree(cache_dir)

    assert logits_of(output, cache_dir) == expected
    assert read_checkpoint(output).name == name
    assert not cache_dir.exists()


@pytest.mark.parametrize(
    ("dtype", "computed", "tolerance"), [("float16", "float32", 0.02), ("int8", "int8", 0.5)]
)
def test_a_folder_converted_to_fewer_bits_says_so_and_is_near(
    source: Path, tmp_path: Path, cache_dir: Path, dtype: str, computed: str, tolerance: float
) -> None:
    output = convert(read_checkpoint(source), tmp_path / "made", dtype=dtype)

    assert read_checkpoint(output).converted_dtype == dtype
    model = load_model(ModelSettings(name=str(output)))
    assert model.dtype == computed
    np.testing.assert_allclose(
        logits_of(output, cache_dir), logits_of(source, cache_dir), atol=tolerance
    )


def test_int8_rows_that_a_checkpoint_stores_are_kept_as_they_are(
    source: Path, tmp_path: Path, cache_dir: Path
) -> None:
    quantize_rows(source / "model.safetensors")
    (tmp_path / "float").mkdir()

    output = convert(read_checkpoint(source), tmp_path / "made", dtype="float32")

    assert read_checkpoint(output).converted_dtype == "int8"
    dequantized = logits_of(source, cache_dir, dtype="float32")
    np.testing.assert_allclose(logits_of(output, cache_dir), dequantized, atol=0.5)


def test_more_precision_than_a_folder_kept_is_refused(source: Path, tmp_path: Path) -> None:
    output = convert(read_checkpoint(source), tmp_path / "made", dtype="int8")

    with pytest.raises(RuntimeUnavailableError, match="cannot give float32 back"):
        load_model(ModelSettings(name=str(output), dtype="float32"))


def test_a_converted_folder_is_verified_when_it_is_loaded(source: Path, tmp_path: Path) -> None:
    output = convert(read_checkpoint(source), tmp_path / "made", dtype="float32")
    assert verify_manifest(output) is not None
    weights = output / "ctranslate2" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")

    with pytest.raises(ChecksumMismatchError, match=r"ctranslate2/model\.bin"):
        load_model(ModelSettings(name=str(output)))


def test_torch_does_not_run_a_folder_made_for_ctranslate2(source: Path, tmp_path: Path) -> None:
    output = convert(read_checkpoint(source), tmp_path / "made", dtype="float32")

    with pytest.raises(RuntimeUnavailableError, match="converted for ctranslate2"):
        load_model(ModelSettings(name=str(output), runtime="torch"))


def test_converting_again_replaces_the_folder(source: Path, tmp_path: Path) -> None:
    output = convert(read_checkpoint(source), tmp_path / "made", dtype="int8")
    (output / "left-over").touch()

    convert(read_checkpoint(source), output, dtype="float32")

    assert json.loads((output / "tamis.json").read_text())["converted"]["dtype"] == "float32"
    assert not (output / "left-over").exists()


def test_a_failure_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    edit_json(source / "config.json", num_hidden_layers=3)
    checkpoint = read_checkpoint(source)
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(data[: len(data) // 2])

    with pytest.raises(IncompleteModelError):
        convert(checkpoint, tmp_path / "out" / "made", dtype="float32")

    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("float32", "float32"), ("bfloat16", "float32"), ("float16", "float16"), ("int8", "int8")],
)
def test_each_dtype_has_a_file_that_serves_it(dtype: str, stored: str) -> None:
    assert stored_dtype(dtype) == stored
