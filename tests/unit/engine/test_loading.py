import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from tamis.engine.backend import LocalBackend
from tamis.engine.heads.classification import ClassificationHead
from tamis.engine.loading import LoadedModel, load_model, warm_up
from tamis.engine.manifest import write_manifest
from tamis.errors import (
    ChecksumMismatchError,
    IncompleteModelError,
    InferenceError,
    ModelError,
    SettingsError,
    UnsafeModelError,
    UnsupportedModelError,
)
from tamis.settings import ModelSettings, RuntimeName
from tests.tiny_models import edit_json, quantize_rows, save_classifier

QUERY = "what is a panda?"
DOCUMENTS = ["hi", "The giant panda is a bear species endemic to China.", "", "water boils"]
RUNTIMES: list[RuntimeName] = ["ctranslate2", "torch"]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny XLM-R reranker that may be spoilt."""
    return Path(shutil.copytree(tiny_model, tmp_path / "spoilt"))


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> RuntimeName:
    """Each runtime in turn."""
    name: RuntimeName = request.param
    return name


@pytest.fixture
def load(cache_dir: Path) -> Any:
    """Loads a folder, on ctranslate2 unless told otherwise."""

    def loaded(folder: Path, **options: Any) -> LoadedModel:
        return load_model(ModelSettings(name=str(folder), cache_dir=cache_dir, **options))

    return loaded


def logits_of(model: LoadedModel) -> NDArray[np.float32]:
    """The logits of a few pairs."""
    return model.backend.forward(model.tokenizer.encode(QUERY, DOCUMENTS))


def test_a_loaded_model_says_what_it_is_and_where_it_runs(
    load: Any, tiny_model: Path, runtime: RuntimeName, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model = load(tiny_model, runtime=runtime)

    facts = model.facts
    assert (facts.name, facts.runtime) == ("xlm-roberta", runtime)
    assert (facts.device, facts.dtype, facts.max_length) == ("cpu", "float32", 512)
    assert f"{runtime} on cpu in float32, at most 512 tokens" in caplog.text


def test_a_model_is_not_called_what_it_was_trained_from(load: Any, folder: Path) -> None:
    edit_json(folder / "config.json", _name_or_path="BAAI/bge-m3")

    assert load(folder).facts.name == "spoilt"


def test_auto_is_ctranslate2(load: Any, tiny_model: Path) -> None:
    assert load(tiny_model).facts.runtime == "ctranslate2"


def test_shards_give_what_one_file_gives(load: Any, tmp_path: Path, runtime: RuntimeName) -> None:
    single = save_classifier(tmp_path / "single", "bert")
    sharded = save_classifier(tmp_path / "sharded", "bert", shards="20KB")

    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    np.testing.assert_array_equal(
        logits_of(load(sharded, runtime=runtime)), logits_of(load(single, runtime=runtime))
    )


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_precision_give_what_their_widened_values_give(
    load: Any, folder: Path, runtime: RuntimeName, stored: torch.dtype
) -> None:
    weights = folder / "model.safetensors"
    half = {name: tensor.to(stored) for name, tensor in load_torch(weights).items()}
    save_torch({name: tensor.float() for name, tensor in half.items()}, weights)
    expected = logits_of(load(folder, runtime=runtime))

    save_torch(half, weights)

    np.testing.assert_array_equal(logits_of(load(folder, runtime=runtime)), expected)


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert", "maxsim"])
def test_weights_stored_as_int8_rows_give_what_their_dequantized_values_give(
    load: Any,
    tiny_classifiers: dict[str, Path],
    tiny_maxsim: Path,
    tmp_path: Path,
    runtime: RuntimeName,
    kind: str,
) -> None:
    source = tiny_maxsim if kind == "maxsim" else tiny_classifiers[kind]
    folder = Path(shutil.copytree(source, tmp_path / "int8"))
    quantize_rows(folder / "model.safetensors")
    quantized = logits_of(load(folder, runtime=runtime, dtype="float32"))

    stored = load_file(folder / "model.safetensors")
    widened = {
        name: tensor.astype(np.float32) * stored[f"{name}_scale"][:, None]
        if f"{name}_scale" in stored
        else tensor.astype(np.float32)
        for name, tensor in stored.items()
        if not name.endswith("_scale")
    }
    save_file(widened, folder / "model.safetensors")

    np.testing.assert_allclose(
        quantized, logits_of(load(folder, runtime=runtime, dtype="float32")), atol=1e-5
    )


def spoil_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text("{}")
    edit_json(folder / "model.safetensors.index.json", weight_map=index)


def spoil_bytes(folder: Path) -> None:
    write_manifest(folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def cut_short(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) * 2 // 3])


def make_pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lose_tokenizer_model(folder: Path) -> None:
    edit_json(folder / "tokenizer.json", model=None)


def two_outputs(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name in ("classifier.out_proj.weight", "classifier.out_proj.bias"):
        tensors[name] = np.concatenate([tensors[name]] * 2)
    save_file(tensors, folder / "model.safetensors")


def lose_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["roberta.encoder.layer.1.output.dense.bias"]
    save_file(tensors, folder / "model.safetensors")


def weights_in_a_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def config(**changes: Any) -> Any:
    return lambda folder: edit_json(folder / "config.json", **changes)


@pytest.mark.parametrize(
    ("spoil", "error", "complaint"),
    [
        (make_pickled, UnsafeModelError, "only pickled weights"),
        (config(auto_map={"AutoModel": "m.M"}), UnsafeModelError, "auto_map"),
        (spoil_shard, IncompleteModelError, "model-00002-of-00002.safetensors"),
        (cut_short, IncompleteModelError, "cut short"),
        (lose_tensor, IncompleteModelError, "no tensor roberta.encoder.layer.1.output.dense.bias"),
        (weights_in_a_folder, IncompleteModelError, "cannot be read: Is a directory"),
        (lose_tokenizer_model, UnsupportedModelError, "has no `model`"),
        (config(pad_token_id=0), UnsupportedModelError, "pad_token_id 0, which tokenizer.json"),
        (spoil_bytes, ChecksumMismatchError, "model.safetensors"),
        (two_outputs, UnsupportedModelError, "2 labels"),
        (config(id2label={"0": "a", "1": "b"}), UnsupportedModelError, "2 labels"),
        (config(architectures=["T5Model"]), UnsupportedModelError, "T5Model"),
        (config(num_hidden_layers=2), UnsupportedModelError, "config.json tells"),
        (config(num_hidden_layers=4), UnsupportedModelError, "config.json tells"),
        (config(hidden_size=64), UnsupportedModelError, "config.json tells"),
        (config(max_position_embeddings=1026), UnsupportedModelError, "config.json tells"),
        (config(vocab_size=9999), UnsupportedModelError, "config.json tells"),
        (config(vocab_size=50), UnsupportedModelError, "do not belong together|config.json tells"),
        (config(num_attention_heads=5), UnsupportedModelError, "attention heads"),
    ],
)
def test_a_folder_that_cannot_be_trusted_is_refused_by_either_runtime(
    load: Any, folder: Path, runtime: RuntimeName, spoil: Any, error: type, complaint: str
) -> None:
    spoil(folder)

    with pytest.raises(error, match=complaint) as caught:
        load(folder, runtime=runtime)

    assert isinstance(caught.value, ModelError)


def test_a_model_that_reads_less_than_the_default_lowers_max_length(
    load: Any, tmp_path: Path, runtime: RuntimeName
) -> None:
    folder = save_classifier(tmp_path / "short", "bert", max_position_embeddings=40)

    model = load(folder, runtime=runtime)

    assert model.facts.max_length == 40
    pairs = model.tokenizer.encode(QUERY, ["the panda " * 99])
    assert pairs[0].n_tokens == 40
    assert np.isfinite(model.backend.forward(pairs)).all()


def test_more_tokens_than_the_model_reads_are_refused_when_asked_for(
    load: Any, tiny_model: Path
) -> None:
    with pytest.raises(SettingsError, match=r"max_length is 513, .* at most 512"):
        load(tiny_model, max_length=513)


def test_the_longest_pair_a_model_reads_is_scored(
    load: Any, tiny_model: Path, runtime: RuntimeName
) -> None:
    model = load(tiny_model, runtime=runtime, max_length=512)
    pairs = model.tokenizer.encode(QUERY, ["the panda " * 999])

    assert pairs[0].n_tokens == 512
    assert np.isfinite(model.backend.forward(pairs)).all()


def test_a_model_whose_logits_are_not_finite_does_not_come_up(load: Any, tiny_model: Path) -> None:
    model = load(tiny_model)
    broken = ClassificationHead(np.full(32, np.nan, dtype=np.float32), bias=0.0)
    backend = LocalBackend(model.backend.runtime, broken)

    with pytest.raises(InferenceError, match="not finite"):
        warm_up(replace(model, backend=backend))


@pytest.mark.parametrize("name", ["maxsim.importance", "maxsim.projection"])
def test_what_a_head_learned_for_another_width_than_the_model_s_is_refused(
    tiny_maxsim: Path, tmp_path: Path, cache_dir: Path, runtime: RuntimeName, name: str
) -> None:
    folder = Path(shutil.copytree(tiny_maxsim, tmp_path / "spoilt"))
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors[name][:-1].copy()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UnsupportedModelError, match=f"{name} has shape"):
        load_model(ModelSettings(name=str(folder), cache_dir=cache_dir, runtime=runtime))


@pytest.mark.parametrize(
    "step",
    ["loading.read_weights", "ctranslate2.opening._open_runtime", "ctranslate2.opening.converted"],
)
def test_a_model_that_memory_does_not_hold_is_a_sentence_with_its_folder(
    tiny_model: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(f"tamis.engine.{step}", fails)

    with pytest.raises(ModelError, match=f"{tiny_model} needs more memory than is available"):
        load_model(ModelSettings(name=str(tiny_model), cache_dir=cache_dir))
