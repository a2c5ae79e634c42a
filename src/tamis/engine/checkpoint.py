"""A model's folder in Hugging Face layout: what it says of itself, and whether tamis runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import msgspec

from tamis.engine.files import file_digests, read_struct
from tamis.errors import IncompleteModelError, UnsafeModelError, UnsupportedModelError

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
TAMIS_FILE = "tamis.json"
RUNTIME_FOLDER = "ctranslate2"
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")
_DEFAULT_LABELS = 2  # of `transformers`
FORMAT_VERSION = 3
"""Of converted folders; raised when they change in a way that old ones must not be used."""

Activation = Literal["gelu", "relu"]
Dtype = Literal["float32", "float16", "bfloat16", "int8"]
Count = Annotated[int, msgspec.Meta(ge=1)]


class _CpuDtype(msgspec.Struct, frozen=True):
    cpu: Dtype = "float32"


class _Converted(msgspec.Struct, frozen=True):
    dtype: Dtype
    format: int


class _Description(msgspec.Struct, frozen=True):
    """What tamis reads in `tamis.json`."""

    name: str | None = None
    dtype: _CpuDtype = _CpuDtype()
    head: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    converted: _Converted | None = None


class _Kind(msgspec.Struct, frozen=True):
    """What `config.json` says of any model."""

    architectures: list[str] | None = None
    model_type: str | None = None
    auto_map: Any = None


class _Config(msgspec.Struct, frozen=True):
    """What `config.json` says of an encoder; defaults are those of `transformers`."""

    vocab_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    hidden_size: Count
    max_position_embeddings: Count
    layer_norm_eps: Annotated[float, msgspec.Meta(gt=0)] = 1e-12
    hidden_act: str = "gelu"
    position_embedding_type: str | None = None
    is_decoder: bool | None = None
    pad_token_id: Annotated[int, msgspec.Meta(ge=0)] | None = 1
    id2label: dict[str, Any] | None = None
    num_labels: int | None = None


class _Index(msgspec.Struct, frozen=True):
    """What tamis reads in `model.safetensors.index.json`: the shard of each tensor."""

    weight_map: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """Where one architecture keeps its tensors.

    Attributes:
        prefix: Before the encoder's tensor names.
        pooler: The linear layer (then tanh) on the first token's state.
        output: The linear layer that makes the logit.
        positions_after_padding: Whether positions are counted from the row of the position
            table that follows the padding token's number, as RoBERTa's are.
    """

    prefix: str
    pooler: str
    output: str
    positions_after_padding: bool = False


_ROBERTA = Family(
    "roberta.", "classifier.dense", "classifier.out_proj", positions_after_padding=True
)
FAMILIES: Mapping[str, Family] = {
    "XLMRobertaForSequenceClassification": _ROBERTA,
    "RobertaForSequenceClassification": _ROBERTA,
    "BertForSequenceClassification": Family("bert.", "bert.pooler.dense", "classifier"),
    "BertModel": Family("", "", ""),
}
_ARCHITECTURES_OF = {
    "bert": ["BertForSequenceClassification"],
    "roberta": ["RobertaForSequenceClassification"],
    "xlm-roberta": ["XLMRobertaForSequenceClassification"],
}
"""What a model type stands for where `config.json` names no architecture."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, read and found fit to run.

    Attributes:
        name: What the model calls itself; what it was asked for by, or its folder's name
            otherwise.
        n_pieces: Rows of its word embedding.
        position_offset: The row of the position table that belongs to the first token.
        max_length: Most tokens a sequence may have.
        n_labels: Of the classification head, if it has one.
        head: What `tamis.json` says of the head (see `heads/reading.py`); None where nothing.
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
    position_offset: int
    max_length: int
    layer_norm_epsilon: float
    activation: Activation
    n_labels: int
    head: Mapping[str, Any] | None
    cpu_dtype: Dtype
    converted_dtype: Dtype | None

    @cached_property
    def content(self) -> Mapping[str, str]:
        """Hex sha256 of each file that the model is read from, hashed at the first call.

        Raises:
            ModelError: a file is missing, cannot be read or is not a regular one.
        """
        try:
            return file_digests(self.folder, model_files(self.folder))
        except OSError as error:
            raise IncompleteModelError(
                f"{error.filename or self.folder} cannot be read: {error.strerror}"
            ) from error


def read_checkpoint(
    folder: Path, *, name: str | None = None, described_only: bool = False
) -> Checkpoint:
    """Read `config.json` and `tamis.json`, and refuse what tamis would not run faithfully.

    Args:
        folder: Where the model is.
        name: What it was asked for by, for a model that does not call itself anything.
        described_only: Whether tokenizer and weights are still to come.

    Raises:
        IncompleteModelError: a file is missing or not JSON.
        UnsafeModelError: the weights are pickled only, or the model brings code (`auto_map`).
        UnsupportedModelError: the architecture or an option of it is not known.
    """
    family = _read_family(folder)
    own = _Description()
    if (folder / TAMIS_FILE).exists():
        own = read_struct(folder / TAMIS_FILE, _Description)
    if own.converted is not None:
        _require_runtime_files(folder, own.converted)
    elif not described_only:
        _require_weights(folder)
    if not described_only and not (folder / TOKENIZER_FILE).exists():
        raise IncompleteModelError(f"{folder} has no {TOKENIZER_FILE}")
    config = read_struct(folder / CONFIG_FILE, _Config)
    _require_shared_width(folder, config)
    position_offset = _position_offset(folder, config, family)
    return Checkpoint(
        folder=folder,
        name=own.name or name or folder.resolve().name,
        family=family,
        n_pieces=config.vocab_size,
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        position_offset=position_offset,
        max_length=config.max_position_embeddings - position_offset,
        layer_norm_epsilon=config.layer_norm_eps,
        activation=_read_activation(folder, config),
        n_labels=len(config.id2label or ()) or config.num_labels or _DEFAULT_LABELS,
        head=None if isinstance(own.head, msgspec.UnsetType) else own.head,
        cpu_dtype=own.dtype.cpu,
        converted_dtype=None if own.converted is None else own.converted.dtype,
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, single or sharded, in the order of their names.

    An index next to a `model.safetensors` is left over from shards: `transformers` ignores it too.

    Raises:
        IncompleteModelError: a shard that the index names is missing.
        UnsupportedModelError: the index names a file outside the folder.
    """
    if (folder / WEIGHTS_FILE).exists() or not (folder / WEIGHTS_INDEX_FILE).exists():
        return [folder / WEIGHTS_FILE]
    names = shard_names(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise IncompleteModelError(f"{folder} lacks {', '.join(missing) or 'its shards'}")
    return [folder / name for name in names]


def shard_names(folder: Path) -> list[str]:
    """The shards that a folder's index names, sorted.

    Raises:
        UnsupportedModelError: the index names a file outside the folder.
    """
    index = folder / WEIGHTS_INDEX_FILE
    names = sorted(set((read_struct(index, _Index).weight_map or {}).values()))
    for name in names:
        if name in ("", "..") or Path(name).name != name:
            raise UnsupportedModelError(
                f"{index} names the shard {name!r}; a shard is a file in the folder of its index"
            )
    return names


def model_files(folder: Path) -> list[str]:
    """Names of the files that a model is read from, sorted: what makes its scores what they are.

    Raises:
        IncompleteModelError: a shard that the index names is missing.
        UnsupportedModelError: the index names a file outside the folder.
    """
    described = [name for name in (CONFIG_FILE, TAMIS_FILE) if (folder / name).exists()]
    weights = [path.name for path in weight_files(folder)]
    runtime = [
        path.relative_to(folder).as_posix()
        for path in (folder / RUNTIME_FOLDER).glob("*")
        if path.is_file()
    ]
    return sorted([*described, TOKENIZER_FILE, *weights, *runtime])


def _read_family(folder: Path) -> Family:
    kind = read_struct(folder / CONFIG_FILE, _Kind)
    if kind.auto_map:
        raise UnsafeModelError(
            f"{folder} needs its own code (`auto_map` in config.json); "
            "tamis runs no code that comes with weights"
        )
    names = kind.architectures or _ARCHITECTURES_OF.get(kind.model_type or "", [])
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
    raise UnsupportedModelError(
        f"{folder} is {', '.join(names) or 'of no named architecture'}; tamis runs "
        + ", ".join(FAMILIES)
    )


def _require_weights(folder: Path) -> None:
    if (folder / WEIGHTS_FILE).exists() or (folder / WEIGHTS_INDEX_FILE).exists():
        weight_files(folder)
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED_SUFFIXES)
    if pickled:
        raise UnsafeModelError(
            f"{folder} has only pickled weights ({', '.join(pickled)}), which can run code "
            f"when they are read; tamis reads {WEIGHTS_FILE}"
        )
    raise IncompleteModelError(f"{folder} has no {WEIGHTS_FILE}")


def _require_runtime_files(folder: Path, converted: _Converted) -> None:
    if converted.format != FORMAT_VERSION:
        raise UnsupportedModelError(
            f"{folder} was converted in format {converted.format}, and this tamis reads "
            f"{FORMAT_VERSION}; convert its source again"
        )
    if not (folder / RUNTIME_FOLDER / "model.bin").is_file():
        raise IncompleteModelError(
            f"{folder} is converted but has no {RUNTIME_FOLDER}/model.bin; convert its source again"
        )


def _require_shared_width(folder: Path, config: _Config) -> None:
    if config.hidden_size % config.num_attention_heads:
        raise UnsupportedModelError(
            f"{folder}: {config.num_attention_heads} attention heads cannot share a hidden size "
            f"of {config.hidden_size}"
        )


def _position_offset(folder: Path, config: _Config, family: Family) -> int:
    """`create_position_ids_from_input_ids` in `transformers` counts from pad_token_id + 1."""
    if not family.positions_after_padding:
        return 0
    padding = config.pad_token_id
    if padding is None or padding + 1 >= config.max_position_embeddings:
        raise UnsupportedModelError(
            f"{folder}: config.json has pad_token_id {padding} and max_position_embeddings "
            f"{config.max_position_embeddings}; positions start behind pad_token_id"
        )
    return padding + 1


def _read_activation(folder: Path, config: _Config) -> Activation:
    if config.is_decoder:
        raise UnsupportedModelError(f"{folder} is a decoder; tamis runs encoders")
    name, positions = config.hidden_act, config.position_embedding_type or "absolute"
    if name not in get_args(Activation) or positions != "absolute":
        raise UnsupportedModelError(
            f"{folder} has activation {name} and {positions} positions; "
            "tamis runs gelu or relu, and absolute positions"
        )
    return cast("Activation", name)
