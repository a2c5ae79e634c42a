"""A model's folder in Hugging Face layout: what it says of itself, and whether tamis runs it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from tamis.errors import IncompleteModelError, UnsafeModelError, UnsupportedModelError

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
TAMIS_FILE = "tamis.json"
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")

Activation = Literal["gelu", "relu"]


@dataclass(frozen=True, slots=True)
class Family:
    """Where one architecture keeps its tensors.

    Attributes:
        prefix: Before the encoder's tensor names.
        pooler: The linear layer (then tanh) on the first token's state.
        output: The linear layer that makes the logit.
        position_offset: The row of the position table that belongs to the first token.
    """

    prefix: str
    pooler: str
    output: str
    position_offset: int


_ROBERTA = Family("roberta.", "classifier.dense", "classifier.out_proj", 2)
FAMILIES: Mapping[str, Family] = {
    "XLMRobertaForSequenceClassification": _ROBERTA,
    "RobertaForSequenceClassification": _ROBERTA,
    "BertForSequenceClassification": Family("bert.", "bert.pooler.dense", "classifier", 0),
    "BertModel": Family("", "", "", 0),
}


@dataclass(frozen=True, slots=True)
class MaxSimOptions:
    """A late-interaction head as `tamis.json` describes it (see `engine/heads.py`)."""

    query_prefix: str
    document_prefix: str
    pooled_weight: float
    scale: float
    offset: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's folder, read and found fit to run.

    Attributes:
        name: What the model calls itself; its folder's name otherwise.
        n_pieces: Rows of its word embedding.
        max_length: Most tokens a sequence may have.
        maxsim: The head's options; None means a classification head.
        cpu_dtype: What `dtype="auto"` takes on a CPU.
        converted_dtype: The dtype of the runtime's own files in a converted folder.
    """

    folder: Path
    name: str
    family: Family
    n_pieces: int
    n_layers: int
    n_heads: int
    hidden_size: int
    max_length: int
    layer_norm_epsilon: float
    activation: Activation
    maxsim: MaxSimOptions | None
    cpu_dtype: str
    converted_dtype: str | None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read `config.json` and `tamis.json`, and refuse what tamis would not run faithfully.

    Raises:
        IncompleteModelError: `config.json` or `tokenizer.json` is missing or not JSON.
        UnsafeModelError: the weights are pickled only, or the model brings code (`auto_map`).
        UnsupportedModelError: the architecture, head or an option of it is not known.
    """
    config = read_json(folder / CONFIG_FILE)
    own = read_json(folder / TAMIS_FILE) if (folder / TAMIS_FILE).exists() else {}
    if "auto_map" in config:
        raise UnsafeModelError(
            f"{folder} wants code of its own to run (`auto_map` in config.json); "
            "tamis runs no code that comes with weights"
        )
    converted = cast("dict[str, str]", own.get("converted") or {})
    if not converted:
        _require_weights(folder)
    if not (folder / TOKENIZER_FILE).exists():
        raise IncompleteModelError(f"{folder} has no {TOKENIZER_FILE}")
    family = _read_family(folder, config)
    maxsim = _read_maxsim(folder, own)
    if maxsim is None:
        _require_one_label(folder, config, family)
    n_heads, hidden_size = _read_width(folder, config)
    return Checkpoint(
        folder=folder,
        name=str(own.get("name") or config.get("_name_or_path") or folder.name),
        family=family,
        n_pieces=_count(folder, config, "vocab_size"),
        n_layers=_count(folder, config, "num_hidden_layers"),
        n_heads=n_heads,
        hidden_size=hidden_size,
        max_length=_count(folder, config, "max_position_embeddings") - family.position_offset,
        layer_norm_epsilon=float(config.get("layer_norm_eps", 1e-12)),
        activation=_read_activation(folder, config),
        maxsim=maxsim,
        cpu_dtype=str((own.get("dtype") or {}).get("cpu", "float32")),
        converted_dtype=converted.get("dtype"),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        IncompleteModelError: the file is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IncompleteModelError(f"{path.parent} has no {path.name}") from None
    except ValueError as error:
        raise IncompleteModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise IncompleteModelError(f"{path} holds no JSON object")
    return cast("dict[str, Any]", content)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, single or sharded, in the order of their names.

    Raises:
        IncompleteModelError: a shard that the index names is missing.
    """
    index = folder / WEIGHTS_INDEX_FILE
    if not index.exists():
        return [folder / WEIGHTS_FILE]
    shards = cast("dict[str, str]", read_json(index).get("weight_map") or {})
    files = [folder / Path(name).name for name in sorted(set(shards.values()))]
    missing = [path.name for path in files if not path.exists()]
    if missing or not files:
        raise IncompleteModelError(f"{folder} lacks {', '.join(missing) or 'its shards'}")
    return files


def _require_weights(folder: Path) -> None:
    if (folder / WEIGHTS_FILE).exists() or (folder / WEIGHTS_INDEX_FILE).exists():
        weight_files(folder)
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED_SUFFIXES)
    if pickled:
        raise UnsafeModelError(
            f"{folder} holds pickled weights only ({', '.join(pickled)}), which can run code "
            f"when they are read; tamis reads {WEIGHTS_FILE}"
        )
    raise IncompleteModelError(f"{folder} has no {WEIGHTS_FILE}")


def _count(folder: Path, config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise UnsupportedModelError(
            f"{folder}: config.json gives {value!r} for {name}, not a count"
        )
    return value


def _read_width(folder: Path, config: Mapping[str, Any]) -> tuple[int, int]:
    """How many attention heads there are, and the hidden size they share."""
    n_heads = _count(folder, config, "num_attention_heads")
    hidden_size = _count(folder, config, "hidden_size")
    if hidden_size % n_heads:
        raise UnsupportedModelError(
            f"{folder}: {n_heads} attention heads cannot share a hidden size of {hidden_size}"
        )
    return n_heads, hidden_size


def _read_family(folder: Path, config: Mapping[str, Any]) -> Family:
    names = cast("list[str]", config.get("architectures") or [])
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
    raise UnsupportedModelError(
        f"{folder} is {', '.join(names) or 'of no named architecture'}; tamis runs "
        + ", ".join(FAMILIES)
    )


def _require_one_label(folder: Path, config: Mapping[str, Any], family: Family) -> None:
    if not family.output:
        raise UnsupportedModelError(
            f"{folder} is an encoder without a classification head, and no {TAMIS_FILE} names one"
        )
    labels = config.get("id2label")
    n_labels = len(cast("dict[str, str]", labels)) if labels else int(config.get("num_labels", 2))
    if n_labels != 1:
        raise UnsupportedModelError(
            f"{folder} has {n_labels} labels; a reranker has one (the relevance logit)"
        )


def _read_activation(folder: Path, config: Mapping[str, Any]) -> Activation:
    if config.get("is_decoder"):
        raise UnsupportedModelError(f"{folder} is a decoder; tamis runs encoders")
    positions = config.get("position_embedding_type", "absolute")
    name = config.get("hidden_act", "gelu")
    if name not in get_args(Activation) or positions != "absolute":
        raise UnsupportedModelError(
            f"{folder} has activation {name} and {positions} positions; "
            "tamis runs gelu or relu, and absolute positions"
        )
    return cast("Activation", name)


def _read_maxsim(folder: Path, own: Mapping[str, Any]) -> MaxSimOptions | None:
    head: Any = own.get("head") or {"type": "classification"}
    kind = head.get("type") if isinstance(head, dict) else None
    if kind == "classification":
        return None
    if kind != "maxsim":
        raise UnsupportedModelError(f"{folder} has a head of type {kind}")
    try:
        return MaxSimOptions(
            query_prefix=str(head["query_prefix"]),
            document_prefix=str(head["document_prefix"]),
            pooled_weight=float(head["pooled_weight"]),
            scale=float(head["scale"]),
            offset=float(head["offset"]),
        )
    except KeyError as error:
        raise UnsupportedModelError(
            f"the head in {TAMIS_FILE} lacks {error.args[0]} ({folder})"
        ) from None
