import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tamis.engine.checkpoint import MaxSimOptions, read_checkpoint, read_json, weight_files
from tamis.errors import IncompleteModelError, UnsafeModelError, UnsupportedModelError
from tests.tiny_models import edit_json, write_json


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny XLM-R reranker that may be spoilt."""
    return Path(shutil.copytree(tiny_model, tmp_path / "spoilt"))


@pytest.fixture
def maxsim_folder(tiny_maxsim: Path, tmp_path: Path) -> Path:
    """A copy of the tiny late-interaction model that may be spoilt."""
    return Path(shutil.copytree(tiny_maxsim, tmp_path / "spoilt-maxsim"))


@pytest.mark.parametrize(
    ("family", "max_length", "epsilon", "prefix"),
    [
        ("xlm-roberta", 512, 1e-5, "roberta."),
        ("roberta", 512, 1e-5, "roberta."),
        ("bert", 512, 1e-12, "bert."),
    ],
)
def test_a_folder_says_what_its_model_is(
    tiny_classifiers: dict[str, Path], family: str, max_length: int, epsilon: float, prefix: str
) -> None:
    checkpoint = read_checkpoint(tiny_classifiers[family])

    assert (checkpoint.n_layers, checkpoint.n_heads, checkpoint.hidden_size) == (3, 4, 32)
    assert checkpoint.max_length == max_length
    assert checkpoint.layer_norm_epsilon == pytest.approx(epsilon)
    assert checkpoint.family.prefix == prefix
    assert checkpoint.maxsim is None
    assert (checkpoint.name, checkpoint.cpu_dtype) == (family, "float32")
    assert checkpoint.converted_dtype is None


def test_tamis_json_names_the_model_its_head_and_its_dtype(maxsim_folder: Path) -> None:
    edit_json(maxsim_folder / "tamis.json", dtype={"cpu": "int8"})

    checkpoint = read_checkpoint(maxsim_folder)

    assert (checkpoint.name, checkpoint.cpu_dtype) == ("tiny-maxsim", "int8")
    assert checkpoint.maxsim == MaxSimOptions("query:", "passage:", 0.5, 20.0, 0.6)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_incomplete(folder: Path, missing: str) -> None:
    (folder / missing).unlink()

    with pytest.raises(IncompleteModelError, match=f"has no {missing}"):
        read_checkpoint(folder)


@pytest.mark.parametrize(("content", "complaint"), [("{", "not valid JSON"), ("[]", "no JSON obj")])
@pytest.mark.parametrize("name", ["config.json", "tamis.json"])
def test_a_description_that_is_no_json_object_is_refused(
    folder: Path, name: str, content: str, complaint: str
) -> None:
    (folder / name).write_text(content)

    with pytest.raises(IncompleteModelError, match=complaint):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.ckpt"])
def test_pickled_weights_alone_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)

    with pytest.raises(UnsafeModelError, match=f"pickled weights only .{name}"):
        read_checkpoint(folder)


def test_pickled_weights_beside_safe_ones_are_not_looked_at(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")

    assert read_checkpoint(folder).n_layers == 3


def test_a_model_that_brings_code_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", auto_map={"AutoModel": "modeling.Model"})

    with pytest.raises(UnsafeModelError, match="auto_map"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"architectures": ["GPT2Model"]}, "GPT2Model; tamis runs XLMRobertaFor"),
        ({"architectures": None}, "no named architecture"),
        ({"architectures": ["BertModel"]}, "without a classification head"),
        ({"id2label": {"0": "no", "1": "yes"}}, "2 labels"),
        ({"id2label": None, "num_labels": 3}, "3 labels"),
        ({"id2label": None}, "2 labels"),
        ({"hidden_act": "swish"}, "activation swish"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "decoder"),
    ],
)
def test_what_tamis_would_not_run_faithfully_is_refused(
    folder: Path, changes: dict[str, Any], complaint: str
) -> None:
    edit_json(folder / "config.json", **changes)

    with pytest.raises(UnsupportedModelError, match=complaint):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "key",
    [
        "vocab_size",
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_size",
        "max_position_embeddings",
    ],
)
@pytest.mark.parametrize("value", [None, "many", 0, [3]])
def test_a_config_without_its_numbers_is_refused(folder: Path, key: str, value: object) -> None:
    edit_json(folder / "config.json", **{key: value})

    with pytest.raises(UnsupportedModelError, match=rf"config\.json.*{key}"):
        read_checkpoint(folder)


def test_one_label_may_be_told_by_its_number(folder: Path) -> None:
    edit_json(folder / "config.json", id2label=None, num_labels=1)

    assert read_checkpoint(folder).maxsim is None


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        ({"type": "colbert"}, "head of type colbert"),
        ({}, "head of type None"),
        ({"type": "maxsim", "query_prefix": "query:"}, "head in tamis.json lacks document_prefix"),
        ("maxsim", "head of type None"),
    ],
)
def test_a_head_that_is_not_known_or_not_whole_is_refused(
    maxsim_folder: Path, head: object, complaint: str
) -> None:
    write_json(maxsim_folder / "tamis.json", {"head": head} if head else {"head": {"x": 1}})

    with pytest.raises(UnsupportedModelError, match=complaint):
        read_checkpoint(maxsim_folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "gone.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    write_json(folder / "model.safetensors.index.json", index)

    with pytest.raises(IncompleteModelError, match=r"lacks gone\.safetensors$"):
        read_checkpoint(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": None}])
def test_an_index_without_shards_is_incomplete(folder: Path, index: object) -> None:
    write_json(folder / "model.safetensors.index.json", index)

    with pytest.raises(IncompleteModelError, match="lacks its shards"):
        weight_files(folder)


def test_shards_outside_the_folder_are_not_followed(folder: Path) -> None:
    index = {"weight_map": {"a": "../../../etc/passwd"}}
    write_json(folder / "model.safetensors.index.json", index)

    with pytest.raises(IncompleteModelError, match="lacks passwd"):
        weight_files(folder)


def test_a_json_file_is_read_as_utf_8(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(json.dumps({"a": "é"}, ensure_ascii=False).encode())

    assert read_json(tmp_path / "config.json") == {"a": "é"}
