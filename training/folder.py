"""Writes and reads a model folder: config.json, tokenizer.json, model.safetensors, tamis.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from training.base import Base, Floats
from training.tokenizer import build_tokenizer

Arrays = dict[str, NDArray[np.generic]]
Rows = tuple[NDArray[np.int8], Floats]
"""A matrix as int8 rows, and the scale of each row."""

IMPORTANCE = "maxsim.importance"
PROJECTION = "maxsim.projection"

PHRASE_WEIGHT = 0.1  # of a token's neighbors; its own similarity counts 1

_SCALE = "_scale"
_NORM = "embeddings.LayerNorm.weight"
_KEPT_FINE = ("embeddings.position", "embeddings.token", PROJECTION)
_WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"

# The base's weights have 4 bits (and a scale for each 32). Rows of the word embedding keep 6
# bits of the 8 they are stored in: a step a third as wide as the base's own, and the archive
# packs what is unused, which pays for a quarter more vocabulary.
LARGEST = 127
_LARGEST_EMBEDDING = 31


@dataclass(frozen=True, slots=True)
class Head:
    """How a pair's features become one logit; see `tamis/engine/heads/maxsim.py`.

    `logit = scale * ((maxsim + pooled_weight * cosine) / (1 + pooled_weight) - offset)`, MaxSim in
    phrases.
    """

    pooled_weight: float
    scale: float = 1.0
    offset: float = 0.0
    phrase_weight: float = PHRASE_WEIGHT


# The cosine helped on no set that it was not fitted on. The rest is fitted.
UNFITTED = Head(pooled_weight=0.0)


def write_folder(
    folder: Path, base: Base, head: Head, *, name: str, version: str, quantized: bool
) -> None:
    """Writes the whole folder; the same arguments give the same bytes.

    Quantized means int8 rows with a float32 scale each, and float16 for what is small; else all
    is float32, as `transformers` would save it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, base.tensors, quantized=quantized)
    build_tokenizer(base.pieces, base.scores).save(str(folder / "tokenizer.json"), pretty=False)
    _write_json(folder / "config.json", encoder_config(base))
    write_head(folder, head, name=name, version=version, dtype="float32")


def write_alike(
    folder: Path,
    other: Path,
    tensors: dict[str, Floats],
    head: Head,
    *,
    name: str,
    version: str,
    rounded: Mapping[str, Rows] | None,
) -> None:
    """Writes a folder with another's configuration and vocabulary; float32 without rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("config.json", "tokenizer.json"):
        shutil.copyfile(other / part, folder / part)
    write_weights(folder, tensors, quantized=rounded is not None, rounded=rounded)
    write_head(folder, head, name=name, version=version, dtype="float32")


def write_weights(
    folder: Path,
    tensors: dict[str, Floats],
    *,
    quantized: bool,
    rounded: Mapping[str, Rows] | None = None,
) -> None:
    """Writes model.safetensors alone; `rounded` are matrices that are int8 rows already."""
    arrays: Arrays = quantize(tensors) if quantized else dict(tensors)
    for name, (rows, scale) in (rounded or {}).items():
        arrays[name], arrays[name + _SCALE] = rows, scale
    _write_arrays(folder, arrays)


def add_learned(folder: Path, learned: Mapping[str, Floats]) -> None:
    """Puts what the head has learned into model.safetensors, as fine as its norms."""
    stored = load_file(folder / "model.safetensors")
    kind = stored[_NORM].dtype
    _write_arrays(folder, stored | {name: part.astype(kind) for name, part in learned.items()})


def write_head(folder: Path, head: Head, *, name: str, version: str, dtype: str) -> None:
    """Writes tamis.json alone, of a folder that has its weights."""
    has_importance = bool(read_importance(folder).any())
    content = {
        "name": name,
        "version": version,
        "dtype": {"cpu": dtype},
        "head": {
            "type": "maxsim",
            "query_prefix": "query:",
            "document_prefix": "passage:",
            "lower_capitals": True,
            **asdict(head),
            "has_importance": has_importance,
            "has_projection": read_projection(folder) is not None,
        },
    }
    _write_json(folder / "tamis.json", content)


def read_head(folder: Path) -> Head:
    """Reads the head back out of tamis.json."""
    written = json.loads((folder / "tamis.json").read_text())["head"]
    head = {"phrase_weight": 0.0} | written
    return Head(**{field.name: float(head[field.name]) for field in fields(Head)})


def encoder_config(base: Base) -> dict[str, object]:
    """The `transformers` configuration of the encoder."""
    n_rows = base.tensors[_WORD_EMBEDDINGS].shape[0]
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": base.hidden,
        "num_hidden_layers": base.n_layers,
        "num_attention_heads": base.n_heads,
        "intermediate_size": base.intermediate,
        "hidden_act": "gelu",
        "max_position_embeddings": base.n_positions,
        "type_vocab_size": base.n_types,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 1,
        "vocab_size": n_rows,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
    }


def quantize(tensors: dict[str, Floats]) -> Arrays:
    """Linear weights and the word embedding as int8 rows; all else as float16."""
    arrays: Arrays = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and not name.startswith(_KEPT_FINE):
            largest = _LARGEST_EMBEDDING if name == _WORD_EMBEDDINGS else LARGEST
            arrays[name], arrays[name + _SCALE] = quantize_rows(tensor, largest)
        else:
            arrays[name] = tensor.astype(np.float16)
    return arrays


def quantize_rows(weight: Floats, largest: int = LARGEST) -> tuple[NDArray[np.int8], Floats]:
    """Symmetric per row: `weight ~ rows * scale[:, None]`, rows in -largest..largest."""
    scale = np.abs(weight).max(axis=1) / np.float32(largest)  # (n_rows,)
    scale[scale == 0] = 1
    rows = np.rint(weight / scale[:, None]).clip(-largest, largest)
    return rows.astype(np.int8), scale.astype(np.float32)


def read_tensors(folder: Path) -> dict[str, Floats]:
    """Reads model.safetensors as float32, int8 rows multiplied out."""
    stored = load_file(folder / "model.safetensors")
    tensors: dict[str, Floats] = {}
    for name, array in stored.items():
        if name.endswith(_SCALE):
            continue
        tensors[name] = array.astype(np.float32)
        if name + _SCALE in stored:
            tensors[name] *= stored[name + _SCALE][:, None]
    return tensors


def read_importance(folder: Path) -> Floats:
    """What the head has learned of query tokens, (hidden,); zeros where it has learned nothing."""
    tensors = read_tensors(folder)
    hidden = tensors[_WORD_EMBEDDINGS].shape[1]
    return tensors.get(IMPORTANCE, np.zeros(hidden, dtype=np.float32))


def read_projection(folder: Path) -> Floats | None:
    """By what the head multiplies token states, (hidden, hidden); None: they stay as they are."""
    return read_tensors(folder).get(PROJECTION)


def read_tokenizer(folder: Path) -> Tokenizer:
    """Reads tokenizer.json."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def read_scores(folder: Path) -> Floats:
    """Reads the vocabulary's unigram log-probabilities, by id."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    return np.array([score for _, score in model["vocab"]], dtype=np.float32)


def _write_arrays(folder: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    save_file(
        {key: np.ascontiguousarray(arrays[key]) for key in sorted(arrays)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
