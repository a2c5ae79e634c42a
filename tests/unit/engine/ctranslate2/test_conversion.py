import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.ctranslate2.conversion import convert, stored_dtype
from tamis.engine.loading import load_model
from tamis.engine.manifest import verify_manifest
from tamis.errors import ChecksumMismatchError, IncompleteModelError, RuntimeUnavailableError
from tamis.settings import DtypeName, ModelSettings
from tests.tiny_models import edit_json, quantize_rows, write_json

QUERY, DOCUMENTS = "what is a panda?", ["hi", "the giant panda is a bear species", ""]


def logits_of(folder: Path, cache_dir: Path, *, dtype: DtypeName = "auto") -> list[float]:
    """The logits of a few pairs, by a folder's model."""
    model = load_model(ModelSettings(name=str(folder), cache_dir=cache_dir, dtype=dtype))
    return model.backend.forward(model.tokenizer.encode(QUERY, DOCUMENTS)).tolist()


def _asked(*dtypes: DtypeName) -> tuple[DtypeName, ...]:
    return dtypes


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
    assert model.facts.dtype == computed
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


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_more_precision_than_a_folder_kept_is_refused(
    source: Path, tmp_path: Path, dtype: str
) -> None:
    output = convert(read_checkpoint(source), tmp_path / "made", dtype=dtype)

    with pytest.raises(RuntimeUnavailableError, match=f"to {dtype} and cannot be run in float32"):
        load_model(ModelSettings(name=str(output), dtype="float32"))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_folder_computes_in_what_it_was_converted_for_not_in_what_its_source_names(
    source: Path, tmp_path: Path, dtype: DtypeName
) -> None:
    named = {"int8": "float32", "float32": "int8"}[dtype]
    description = source / "tamis.json"
    own = json.loads(description.read_text()) if description.exists() else {}
    write_json(description, own | {"dtype": {"cpu": named}})

    output = convert(read_checkpoint(source), tmp_path / "made", dtype=dtype)

    for asked in _asked("auto", dtype):
        assert load_model(ModelSettings(name=str(output), dtype=asked)).facts.dtype == dtype


def test_int8_rows_of_the_source_may_be_computed_in_float32(source: Path, tmp_path: Path) -> None:
    quantize_rows(source / "model.safetensors")

    output = convert(read_checkpoint(source), tmp_path / "made", dtype="float32")

    for asked in _asked("auto", "float32"):
        assert load_model(ModelSettings(name=str(output), dtype=asked)).facts.dtype == "float32"


def test_a_converted_folder_is_verified_when_it_is_loaded(source: Path, tmp_path: Path) -> None:
    output = convert(read_checkpoint(source), tmp_path / "made", dtype="float32")
    assert verify_manifest(output) is not None
    weights = output / "ctranslate2" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")

    with pytest.raises(ChecksumMismatchError, match=r"ctranslate2/model\.bin"):
        load_model(ModelSettings(name=str(output)))


def test_spoilt_files_without_a_manifest_are_refused(source: Path, tmp_path: Path) -> None:
    output = convert(read_checkpoint(source), tmp_path / "made", dtype="float32")
    (output / "tamis-manifest.json").unlink()
    weights = output / "ctranslate2" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(RuntimeUnavailableError, match="ctranslate2 cannot open"):
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


def test_converting_at_once_makes_one_folder(source: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(source)
    output = tmp_path / "out" / "made"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: convert(checkpoint, output, dtype="float32"), range(16)))

    assert verify_manifest(output) is not None
    assert list(output.parent.iterdir()) == [output]


def test_a_folder_that_is_whole_and_the_same_stays_where_it_is(
    source: Path, tmp_path: Path
) -> None:
    output = convert(read_checkpoint(source), tmp_path / "out" / "made", dtype="float32")
    before = output.stat().st_ino

    convert(read_checkpoint(source), output, dtype="float32")

    assert output.stat().st_ino == before
    assert list(output.parent.iterdir()) == [output]


def test_a_spoilt_folder_is_replaced(source: Path, tmp_path: Path) -> None:
    output = convert(read_checkpoint(source), tmp_path / "out" / "made", dtype="float32")
    (output / "ctranslate2" / "model.bin").write_bytes(b"cut short")

    convert(read_checkpoint(source), output, dtype="float32")

    assert verify_manifest(output) is not None
    assert list(output.parent.iterdir()) == [output]


def test_a_converted_folder_has_the_modes_of_any_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").touch()

    output = convert(read_checkpoint(source), tmp_path / "out" / "made", dtype="float32")

    folders = [output, *(path for path in output.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode for path in folders} == {(tmp_path / "plain").stat().st_mode}
    files = [path for path in output.rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in files} == {(tmp_path / "file").stat().st_mode}


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


def test_a_conversion_does_not_wait_for_torch_to_be_imported(
    tiny_maxsim: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
from pathlib import Path
from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.ctranslate2.conversion import convert
convert(read_checkpoint(Path({str(tiny_maxsim)!r})), Path({str(tmp_path / "made")!r}), dtype="int8")
print("torch" in sys.modules)
import torch
print(torch.zeros(1).item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0.0"]
