import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tamis.engine.checkpoint import (
    FORMAT_VERSION,
    read_checkpoint,
    weight_files,
)
from tamis.engine.files import read_json
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
    assert checkpoint.head is None
    assert checkpoint.n_labels == 1
    assert (checkpoint.name, checkpoint.cpu_dtype) == (family, "float32")
    assert checkpoint.converted_dtype is None


def test_tamis_json_names_the_model_its_head_and_its_dtype(maxsim_folder: Path) -> None:
    edit_json(maxsim_folder / "tamis.json", dtype={"cpu": "int8"})

    checkpoint = read_checkpoint(maxsim_folder)

    assert (checkpoint.name, checkpoint.cpu_dtype) == ("tiny-maxsim", "int8")
    assert checkpoint.head is not None
    assert checkpoint.head["type"] == "maxsim"


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_incomplete(folder: Path, missing: str) -> None:
    (folder / missing).unlink()

    with pytest.raises(IncompleteModelError, match=f"has no {missing}"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "complaint"), [("{", "not valid JSON"), ("[]", "not a JSON obj")]
)
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

    with pytest.raises(UnsafeModelError, match=f"only pickled weights .{name}"):
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
        ({"architectures": None, "model_type": None}, "no named architecture"),
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


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"layer_norm_eps": "abc"}, "layer_norm_eps"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
        ({"num_labels": "x"}, "num_labels"),
        ({"id2label": ["x"]}, "id2label"),
        ({"architectures": "XLMRobertaForSequenceClassification"}, "architectures"),
        ({"is_decoder": "no"}, "is_decoder"),
        ({"hidden_act": 7}, "hidden_act"),
        ({"hidden_size": True}, "hidden_size"),
        ({"pad_token_id": -1}, "pad_token_id"),
    ],
)
def test_a_config_with_a_field_of_another_type_is_refused(
    folder: Path, changes: dict[str, Any], field: str
) -> None:
    edit_json(folder / "config.json", **changes)

    with pytest.raises(UnsupportedModelError, match=rf"config\.json: Expected .* at `\$\.{field}"):
        read_checkpoint(folder)


@pytest.mark.parametrize(("padding", "max_length"), [(0, 513), (1, 512), (3, 510), (512, 1)])
def test_positions_of_roberta_follow_the_padding_token(
    folder: Path, padding: int, max_length: int
) -> None:
    edit_json(folder / "config.json", pad_token_id=padding)

    checkpoint = read_checkpoint(folder)

    assert (checkpoint.position_offset, checkpoint.max_length) == (padding + 1, max_length)


def test_positions_of_bert_start_at_0_whatever_the_padding(
    tiny_classifiers: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_classifiers["bert"], tmp_path / "bert"))
    edit_json(folder / "config.json", pad_token_id=7)

    assert read_checkpoint(folder).position_offset == 0


@pytest.mark.parametrize("padding", [None, 513])
def test_a_roberta_without_room_behind_its_padding_token_is_refused(
    folder: Path, padding: int | None
) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"pad_token_id": padding})

    with pytest.raises(UnsupportedModelError, match=f"pad_token_id {padding}"):
        read_checkpoint(folder)


def test_a_name_is_the_folders_unless_another_is_told(folder: Path) -> None:
    edit_json(folder / "config.json", _name_or_path="BAAI/bge-m3")

    assert read_checkpoint(folder).name == "spoilt"
    assert read_checkpoint(folder / ".." / "spoilt" / ".").name == "spoilt"
    assert read_checkpoint(folder, name="BAAI/bge-reranker-v2-m3").name == "BAAI/bge-reranker-v2-m3"
    write_json(folder / "tamis.json", {"name": "own"})
    assert read_checkpoint(folder, name="asked/for").name == "own"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"head": "maxsim"}, r"at `\$\.head"),
        ({"name": 3}, r"at `\$\.name"),
        ({"dtype": "int8"}, r"at `\$\.dtype"),
        ({"dtype": {"cpu": "int4"}}, r"at `\$\.dtype\.cpu"),
        ({"converted": "yes"}, r"at `\$\.converted"),
        ({"converted": {"dtype": "float32"}}, "missing required field `format`"),
        ({"converted": {"dtype": "float32", "format": 1}}, "converted in format 1,"),
    ],
)
def test_a_description_that_is_not_known_or_not_whole_is_refused(
    maxsim_folder: Path, content: object, complaint: str
) -> None:
    write_json(maxsim_folder / "tamis.json", content)

    with pytest.raises(UnsupportedModelError, match=complaint):
        read_checkpoint(maxsim_folder)


def test_a_converted_folder_without_its_weights_is_incomplete(folder: Path) -> None:
    converted = {"dtype": "float32", "format": FORMAT_VERSION}
    write_json(folder / "tamis.json", {"converted": converted})

    with pytest.raises(IncompleteModelError, match=r"no ctranslate2/model\.bin"):
        read_checkpoint(folder)


def test_a_folder_in_place_of_a_file_is_incomplete(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()

    with pytest.raises(IncompleteModelError, match=r"config\.json cannot be read"):
        read_checkpoint(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "gone.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    write_json(folder / "model.safetensors.index.json", index)

    with pytest.raises(IncompleteModelError, match=r"lacks gone\.safetensors$"):
        read_checkpoint(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": None}])
def test_an_index_without_shards_is_incomplete(folder: Path, index: object) -> None:
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", index)

    with pytest.raises(IncompleteModelError, match="lacks its shards"):
        weight_files(folder)


@pytest.mark.parametrize(
    "name", ["..", ".", "", "/etc/passwd", "../model.safetensors", "below/model.safetensors", "a/"]
)
def test_a_shard_that_is_no_plain_file_name_is_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": name}})

    with pytest.raises(UnsupportedModelError, match="a shard is a file in the folder of its index"):
        weight_files(folder)


@pytest.mark.parametrize("weight_map", [["a"], "model.safetensors", {"a": 3}, {"a": None}])
def test_an_index_of_another_kind_is_refused(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})

    with pytest.raises(UnsupportedModelError, match=r"index\.json: Expected .* at `\$\.weight_map"):
        weight_files(folder)


def test_a_json_file_is_read_as_utf_8(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(json.dumps({"a": "é"}, ensure_ascii=False).encode())

    assert read_json(tmp_path / "config.json") == {"a": "é"}


@pytest.mark.parametrize("auto_map", [None, {}])
def test_an_auto_map_without_code_is_none(folder: Path, auto_map: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": auto_map}
    write_json(folder / "config.json", config)

    assert read_checkpoint(folder).n_layers == 3


@pytest.mark.parametrize("key", ["num_labels", "is_decoder", "position_embedding_type"])
def test_a_null_stands_for_the_default(folder: Path, key: str) -> None:
    config = json.loads((folder / "config.json").read_text()) | {key: None}
    write_json(folder / "config.json", config)

    assert read_checkpoint(folder).n_layers == 3


def test_an_index_next_to_whole_weights_is_not_read(folder: Path) -> None:
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "gone.safetensors"}})

    assert weight_files(folder) == [folder / "model.safetensors"]


def test_a_model_type_stands_for_missing_architectures(folder: Path) -> None:
    edit_json(folder / "config.json", architectures=None)

    assert read_checkpoint(folder).family.prefix == "roberta."
