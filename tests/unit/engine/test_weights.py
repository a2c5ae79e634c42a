import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from tamis.engine.weights import QuantizedRows, Weights
from tamis.errors import IncompleteModelError, UnsupportedModelError

VALUES = np.array([[1.5, -2.25, 3.0], [0.0, 65504.0, -1e-4]], dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test writes its weights."""
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64]
)
def test_numbers_of_every_float_type_are_read_as_float32(path: Path, dtype: torch.dtype) -> None:
    stored = torch.from_numpy(VALUES).to(dtype)
    save_torch({"x": stored}, path)

    read = Weights([path]).array("x")

    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, stored.float().numpy())


def test_int8_rows_stay_int8_until_they_are_wanted_as_floats(path: Path) -> None:
    rows = np.array([[127, -127, 0], [1, 2, 3]], dtype=np.int8)
    scales = np.array([0.5, 2.0], dtype=np.float32)
    save_file({"x": rows, "x_scale": scales}, path)

    matrix = Weights([path]).matrix("x")

    assert isinstance(matrix, QuantizedRows)
    np.testing.assert_array_equal(matrix.rows, rows)
    np.testing.assert_array_equal(Weights([path]).array("x"), rows * scales[:, None])


def test_tensors_of_several_files_are_found(tmp_path: Path) -> None:
    save_file({"a": VALUES}, tmp_path / "1.safetensors")
    save_file({"b": VALUES + 1}, tmp_path / "2.safetensors")

    weights = Weights([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])

    np.testing.assert_array_equal(weights.array("a") + 1, weights.array("b"))


def test_a_tensor_that_is_not_there_is_named(path: Path) -> None:
    save_file({"a": VALUES, "b": VALUES.astype(np.int8)}, path)

    for name, missing in (("c", "c"), ("b", "b_scale")):
        with pytest.raises(IncompleteModelError, match=f"no tensor {missing}"):
            Weights([path]).array(name)


def test_a_missing_file_is_incomplete(path: Path) -> None:
    with pytest.raises(IncompleteModelError, match=r"lacks model\.safetensors"):
        Weights([path])


def test_a_folder_in_place_of_a_file_is_incomplete(path: Path) -> None:
    path.mkdir()

    with pytest.raises(IncompleteModelError, match=r"model\.safetensors cannot be read"):
        Weights([path])


@pytest.mark.parametrize("kept", [0, 4, 8, 30, -1, -8])
def test_a_file_cut_short_is_incomplete(path: Path, kept: int) -> None:
    save_file({"x": VALUES}, path)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(IncompleteModelError, match="cut short"):
        Weights([path])


def _entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes


@pytest.mark.parametrize(
    "header",
    [
        [],
        "text",
        {"x": 7},
        {"x": {}},
        {"x": _entry(shape=[2, 4])},
        {"x": _entry(shape="23")},
        {"x": _entry(data_offsets=[0])},
        {"x": _entry(data_offsets=[0, 23])},
        {"x": _entry(data_offsets=["a", "b"])},
        {"x": _entry(dtype=["F32"])},
    ],
)
def test_a_header_that_makes_no_sense_is_incomplete(path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + VALUES.tobytes())

    with pytest.raises(IncompleteModelError, match="not safetensors"):
        Weights([path])


def test_a_pickle_under_a_safe_name_is_not_read(path: Path) -> None:
    torch.save({"x": torch.zeros(3)}, path)

    with pytest.raises(IncompleteModelError, match="not safetensors"):
        Weights([path])


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F4", "C64"])
def test_a_type_of_number_that_tamis_does_not_read_is_named_when_it_is_wanted(
    path: Path, dtype: str
) -> None:
    header = {"x": _entry(), "unread": _entry(dtype=dtype, shape=[24])}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + VALUES.tobytes())
    weights = Weights([path])

    np.testing.assert_array_equal(weights.array("x"), VALUES)
    with pytest.raises(UnsupportedModelError, match=f"tensor unread is {dtype}"):
        weights.array("unread")


def test_old_names_of_layer_norms_are_read(path: Path) -> None:
    save_file({"a.LayerNorm.gamma": VALUES, "a.LayerNorm.beta": VALUES + 1}, path)
    weights = Weights([path])

    np.testing.assert_array_equal(weights.array("a.LayerNorm.weight"), VALUES)
    np.testing.assert_array_equal(weights.array("a.LayerNorm.bias"), VALUES + 1)


@pytest.mark.parametrize("saved", ["", "model.bert.", "roberta."])
def test_an_encoder_saved_under_another_prefix_is_found(path: Path, saved: str) -> None:
    save_file({f"{saved}embeddings.word_embeddings.weight": VALUES, "classifier.x": VALUES}, path)
    weights = Weights([path])
    weights.rename_encoder("bert.")

    assert weights.shape("bert.embeddings.word_embeddings.weight") == (2, 3)
    assert weights.shape("classifier.x") == (2, 3)


def test_metadata_is_no_tensor(path: Path) -> None:
    save_file({"x": VALUES}, path, metadata={"format": "pt"})

    with pytest.raises(IncompleteModelError, match="no tensor __metadata__"):
        Weights([path]).array("__metadata__")
