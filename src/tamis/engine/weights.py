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
from tamis.errors import IncompleteModelError, UnsupportedModelError

SCALE_SUFFIX = "_scale"
"""int8 rows are stored as `X` (I8) and `X_scale` (F32, one a row): value = X * X_scale."""

_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I8": np.int8, "I64": np.int64}


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
        try:
            return self._tensors[name]
        except KeyError:
            raise IncompleteModelError(f"the weights have no tensor {name}") from None


def read_weights(checkpoint: Checkpoint) -> Weights:
    """A checkpoint's tensors, once their shapes are found to be those its config names.

    Raises:
        IncompleteModelError: a file or tensor is missing or cut short.
        UnsupportedModelError: `config.json` describes other weights.
    """
    weights = Weights(weight_files(checkpoint.folder))
    prefix = checkpoint.family.prefix
    n_pieces, hidden_size = weights.shape(f"{prefix}embeddings.word_embeddings.weight")
    n_positions, _ = weights.shape(f"{prefix}embeddings.position_embeddings.weight")
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


def _mapped(path: Path) -> Iterator[tuple[str, tuple[str, NDArray[Any]]]]:
    """Tensors of one file (safetensors format: u64 header length, JSON header, data)."""
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        start = 8 + int(data[:8].view(np.uint64)[0])
        header = json.loads(data[8:start].tobytes())
        for name, entry in cast("Mapping[str, dict[str, Any]]", header).items():
            if name != "__metadata__":
                yield name, _view(name, entry, data[start:])
    except FileNotFoundError:
        raise IncompleteModelError(f"{path.parent} lacks {path.name}") from None
    except OSError as error:
        raise IncompleteModelError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise IncompleteModelError(f"{path} is cut short or not safetensors: {error}") from error


def _view(name: str, entry: dict[str, Any], data: NDArray[np.uint8]) -> tuple[str, NDArray[Any]]:
    dtype = cast("str", entry["dtype"])
    if dtype not in _DTYPES:
        raise UnsupportedModelError(f"tensor {name} is {dtype}; tamis reads {', '.join(_DTYPES)}")
    begin, end = entry["data_offsets"]
    return dtype, data[begin:end].view(_DTYPES[dtype]).reshape(entry["shape"])


def _widened(dtype: str, stored: NDArray[Any]) -> NDArray[np.float32]:
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(stored, dtype=np.float32)
