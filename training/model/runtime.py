"""A model folder in CTranslate2: token ids in, last-layer token states out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec
from tqdm import tqdm

from training.model.base import Floats
from training.model.folder import read_tensors, read_tokenizer

Spec = Any  # ctranslate2's specifications make their fields at run time: no types

# CTranslate2 is fastest on a CPU with small batches.
MAX_BATCH_TOKENS = 1024

# Batches run in parallel on one thread each: threads that share a batch wait for each
# other, and on a machine with other work that costs most of the time.
N_WORKERS = 2


class TokenEncoder:
    """Turns id sequences into token states, float32 or int8 arithmetic.

    Args:
        folder: a model folder.
        compute_type: `float32` or `int8`.
        work: where the converted model is kept.
    """

    def __init__(self, folder: Path, compute_type: str, work: Path) -> None:
        converted = convert(folder, work)
        self._encoder = ctranslate2.Encoder(
            str(converted), compute_type=compute_type, inter_threads=N_WORKERS, intra_threads=1
        )

    def batch(self, sequences: list[list[int]]) -> list[Floats]:
        """Encodes sequences as one batch; returns (n_tokens, hidden) each."""
        output = self._encoder.forward_batch(sequences)
        states = np.array(output.last_hidden_state)  # (n, longest, hidden)
        return [row[: len(ids)] for row, ids in zip(states, sequences, strict=True)]

    def stream(self, sequences: list[list[int]], label: str) -> Iterator[tuple[int, Floats]]:
        """Encodes many sequences in batches of like length; yields (index, states)."""
        order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
        batches = [
            [order[i] for i in batch] for batch in token_batches([len(sequences[i]) for i in order])
        ]
        total = sum(map(len, sequences))
        progress = tqdm(total=total, unit="tok", unit_scale=True, desc=label, mininterval=5)
        with progress, ThreadPoolExecutor(N_WORKERS) as pool:
            for start in range(0, len(batches), 8 * N_WORKERS):
                group = batches[start : start + 8 * N_WORKERS]
                states = pool.map(self.batch, [[sequences[i] for i in batch] for batch in group])
                for batch, found in zip(group, states, strict=True):
                    yield from zip(batch, found, strict=True)
                    progress.update(sum(len(sequences[i]) for i in batch))


def token_batches(lengths: list[int]) -> Iterator[range]:
    """Splits lengths, longest first, into ranges of at most `MAX_BATCH_TOKENS` padded tokens."""
    start = 0
    while start < len(lengths):
        size = max(1, MAX_BATCH_TOKENS // lengths[start])
        yield range(start, min(start + size, len(lengths)))
        start += size


def convert(folder: Path, work: Path) -> Path:
    """Converts a model folder to CTranslate2 (float32), once for each content."""
    parts = [(folder / name).read_bytes() for name in ("model.safetensors", "config.json")]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    target = work / "ct2" / digest
    if not target.exists():
        spec = _specification(folder)
        spec.validate()
        spec.optimize(quantization=None)
        partial = target.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        spec.save(str(partial))
        partial.rename(target)
    return target


def _specification(folder: Path) -> transformer_spec.TransformerEncoderModelSpec:
    config = json.loads((folder / "config.json").read_text())
    tensors = read_tensors(folder)
    encoder = transformer_spec.TransformerEncoderSpec(
        config["num_hidden_layers"],
        config["num_attention_heads"],
        pre_norm=False,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=True,
    )
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = tensors["embeddings.word_embeddings.weight"]
    # Every token is of type 0: its embedding goes into the positions'.
    types = tensors["embeddings.token_type_embeddings.weight"]
    encoder.position_encodings.encodings = (
        tensors["embeddings.position_embeddings.weight"] + types[0]
    )
    _set_norm(encoder.layernorm_embedding, tensors, "embeddings.LayerNorm")
    for number, layer in enumerate(encoder.layer):
        _set_layer(layer, tensors, f"encoder.layer.{number}.")
    spec = transformer_spec.TransformerEncoderModelSpec(encoder)
    spec.register_vocabulary(_vocabulary(folder, config["vocab_size"]))
    spec.config.unk_token = "<unk>"
    spec.config.layer_norm_epsilon = config["layer_norm_eps"]
    return spec


def _vocabulary(folder: Path, n_rows: int) -> list[str]:
    tokenizer = read_tokenizer(folder)
    pieces = [str(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]
    return pieces + [f"<extra_{i}>" for i in range(n_rows - len(pieces))]


def _set_layer(layer: Spec, tensors: dict[str, Floats], prefix: str) -> None:
    names = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
    joined, output = layer.self_attention.linear
    joined.weight = np.concatenate([tensors[f"{name}.weight"] for name in names])
    joined.bias = np.concatenate([tensors[f"{name}.bias"] for name in names])
    _set_linear(output, tensors, f"{prefix}attention.output.dense")
    _set_norm(layer.self_attention.layer_norm, tensors, f"{prefix}attention.output.LayerNorm")
    _set_linear(layer.ffn.linear_0, tensors, f"{prefix}intermediate.dense")
    _set_linear(layer.ffn.linear_1, tensors, f"{prefix}output.dense")
    _set_norm(layer.ffn.layer_norm, tensors, f"{prefix}output.LayerNorm")


def _set_linear(spec: Spec, tensors: dict[str, Floats], name: str) -> None:
    spec.weight = tensors[f"{name}.weight"]
    spec.bias = tensors[f"{name}.bias"]


def _set_norm(spec: Spec, tensors: dict[str, Floats], name: str) -> None:
    spec.gamma = tensors[f"{name}.weight"]
    spec.beta = tensors[f"{name}.bias"]
