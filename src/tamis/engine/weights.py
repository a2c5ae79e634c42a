"""Tensors of a checkpoint, read from safetensors with numpy alone."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tamis.engine.checkpoint import Checkpoint, weight_files
from tamis.engine.files import open_regular
from tamis.errors import IncompleteModelError, UnsupportedModelError

SCALE_SUFFIX = "_scale"
"""int8 rows are stored as `X` (I8) and `X_scale` (F32, one a row): value = X * X_scale."""

_HEADER_BYTES = 16 * 2**20
"""Most bytes of a file's header; an encoder's has some 100,000."""
_DTYPES: Mapping[str, type[np.generic]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_WORD_EMBEDDING = "embeddings.word_embeddings.weight"
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Endings of checkpoints that were converted from TensorFlow, and today's."""


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """A matrix in int8 with one scale a row: value[i] = rows[i] * scales[i]."""

    rows: NDArray[np.int8]
    scales: NDArray[np.float32]

    def dequantized(self) -> NDArray[np.float32]:
        """The matrix in float32."""
        return self.rows.astype(np.float32) * self.scales[:, None]


class Weights:
    """Tensors by name, mapped from their files and read when asked for."""

    def __init__(self, files: list[Path]) -> None:
        self._tensors: dict[str, tuple[str, NDArray[Any]]] = {}
        for path in files:
            self._tensors.update(_mapped(path))

    def rename_encoder(self, prefix: str) -> None:
        """Have the encoder's names begin with a prefix, as `transformers` has when it loads.

        A checkpoint may have been saved without it, or with another one before it.
        """
        if prefix + _WORD_EMBEDDING in self._tensors:
            return
        found = [name for name in self._tensors if name.endswith(_WORD_EMBEDDING)]
        if len(found) == 1:
            old = found[0].removesuffix(_WORD_EMBEDDING)
            self._tensors = {
                _renamed(name, old, prefix): tensor for name, tensor in self._tensors.items()
            }

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return self._find(name)[1].shape

    def count_layers(self, prefix: str) -> int:
        """How many encoder layers there are behind a prefix."""
        layer = re.compile(re.escape(prefix) + r"encoder\.layer\.(\d+)\.")
        return len({match[1] for match in map(layer.match, self._tensors) if match})

    def matrix(self, name: str) -> NDArray[np.float32] | QuantizedRows:
        """A weight as it is stored: float32 (other float types are widened) or int8 rows."""
        dtype, stored = self._find(name)
        if dtype == "I8":
            return QuantizedRows(stored, self.array(name + SCALE_SUFFIX))
        return _widened(dtype, stored)

    def array(self, name: str) -> NDArray[np.float32]:
        """A tensor in float32, dequantized where it is stored in int8."""
        tensor = self.matrix(name)
        return tensor.dequantized() if isinstance(tensor, QuantizedRows) else tensor

    def _find(self, name: str) -> tuple[str, NDArray[Any]]:
        if name not in self._tensors:
            raise IncompleteModelError(f"the weights have no tensor {name}")
        dtype, stored = self._tensors[name]
        if dtype not in _DTYPES:
            raise UnsupportedModelError(
                f"tensor {name} is {dtype}; tamis reads {', '.join(_DTYPES)}"
            )
        return dtype, stored


def open_weights(checkpoint: Checkpoint) -> Weights:
    """A checkpoint's tensors by the names that its architecture has for them.

    Raises:
        IncompleteModelError: a file is missing or cut short.
    """
    weights = Weights(weight_files(checkpoint.folder))
    weights.rename_encoder(checkpoint.family.prefix)
    return weights


def read_weights(checkpoint: Checkpoint) -> Weights:
    """A checkpoint's tensors, once their shapes are found to be those its config names.

    Raises:
        IncompleteModelError: a file or tensor is missing or cut short.
        UnsupportedModelError: `config.json` describes other weights.
    """
    weights = open_weights(checkpoint)
    prefix = checkpoint.family.prefix
    n_pieces, hidden_size = _matrix_shape(weights, prefix + _WORD_EMBEDDING)
    n_positions, _ = _matrix_shape(weights, f"{prefix}embeddings.position_embeddings.weight")
    max_length = n_positions - checkpoint.position_offset
    found = (n_pieces, hidden_size, max_length, weights.count_layers(prefix))
    told = (
        checkpoint.n_pieces,
        checkpoint.hidden_size,
        checkpoint.max_length,
        checkpoint.n_layers,
    )
    if found != told:
        raise UnsupportedModelError(
            f"{checkpoint.folder}: config.json tells (pieces, hidden size, tokens, layers) {told}, "
            f"and the weights have {found}"
        )
    return weights


def _matrix_shape(weights: Weights, name: str) -> tuple[int, int]:
    shape = weights.shape(name)
    if len(shape) != 2:
        raise UnsupportedModelError(f"tensor {name} has shape {shape}; tamis reads a matrix")
    return shape[0], shape[1]


def _mapped(path: Path) -> Iterator[tuple[str, tuple[str, NDArray[Any]]]]:
    """Tensors of one file (safetensors format: u64 header length, JSON header, data)."""
    try:
        with open_regular(path) as file:
            data = np.memmap(file, dtype=np.uint8, mode="r")
        length = int(data[:8].view(np.uint64)[0])
        if length > _HEADER_BYTES:
            raise IncompleteModelError(
                f"{path} is not safetensors: its header has {length:,} bytes, and may have "
                f"{_HEADER_BYTES:,}"
            )
        start = 8 + length
        header = json.loads(data[8:start].tobytes())
        for name, entry in cast("Mapping[str, dict[str, Any]]", header).items():
            if name != "__metadata__":
                yield _current(name), _view(entry, data[start:])
    except FileNotFoundError:
        raise IncompleteModelError(f"{path.parent} lacks {path.name}") from None
    except OSError as error:
        raise IncompleteModelError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise IncompleteModelError(f"{path} is cut short or not safetensors: {error}") from error


def _view(entry: dict[str, Any], data: NDArray[np.uint8]) -> tuple[str, NDArray[Any]]:
    """A tensor's dtype and values; of a dtype that tamis does not read, its bytes."""
    dtype = cast("str", entry["dtype"])
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(data):
        raise ValueError(f"bytes {begin} to {end} of {len(data)}")
    stored = data[begin:end]
    if dtype not in _DTYPES:
        return dtype, stored
    return dtype, stored.view(_DTYPES[dtype]).reshape(entry["shape"])


def _current(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _renamed(name: str, old: str, new: str) -> str:
    """A tensor's name with `new` for `old` before it; the head may share a part of `old`."""
    if name.startswith((f"{old}embeddings.", f"{old}encoder.", f"{old}pooler.")):
        return new + name.removeprefix(old)
    return name.removeprefix(old.removesuffix(new)) if old.endswith(new) else name


def _widened(dtype: str, stored: NDArray[Any]) -> NDArray[np.float32]:
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(stored, dtype=np.float32)
