"""A checkpoint of seeded random weights: for speed, memory and agreement, never for ranking."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tamis.engine.checkpoint import TOKENIZER_FILE
from tamis.engine.location import EMBEDDED_FOLDER

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of an XLM-RoBERTa; the defaults are those of BAAI/bge-reranker-v2-m3."""

    n_layers: int = 24
    n_heads: int = 16
    hidden: int = 1024
    inner: int = 4096
    vocabulary: int = 250_002
    positions: int = 8194


def write_random_checkpoint(folder: Path, shape: Shape = Shape(), *, seed: int = 0) -> Path:
    """Write an `XLMRobertaForSequenceClassification` with one label in Hugging Face layout.

    Matrices are normal with standard deviation 0.02, as transformers initializes them; norms are
    1 and biases 0 with as much noise, so that leaving one out is seen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(_tensors(shape, np.random.default_rng(seed))), folder / "model.safetensors")
    config = {
        "architectures": ["XLMRobertaForSequenceClassification"],
        "model_type": "xlm-roberta",
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _write_tokenizer(folder)
    return folder


def _tensors(shape: Shape, random: np.random.Generator) -> Iterator[tuple[str, Array]]:
    def noise(*size: int) -> Array:
        return random.standard_normal(size, dtype=np.float32) * np.float32(0.02)

    def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, Array]]:
        yield f"{name}.weight", noise(rows, columns)
        yield f"{name}.bias", noise(rows)

    def norm(name: str) -> Iterator[tuple[str, Array]]:
        yield f"{name}.weight", 1 + noise(shape.hidden)
        yield f"{name}.bias", noise(shape.hidden)

    hidden, inner = shape.hidden, shape.inner
    yield "roberta.embeddings.word_embeddings.weight", noise(shape.vocabulary, hidden)
    yield "roberta.embeddings.position_embeddings.weight", noise(shape.positions, hidden)
    yield "roberta.embeddings.token_type_embeddings.weight", noise(1, hidden)
    yield from norm("roberta.embeddings.LayerNorm")
    for number in range(shape.n_layers):
        layer = f"roberta.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", hidden, hidden)
        yield from linear(f"{layer}.attention.output.dense", hidden, hidden)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", inner, hidden)
        yield from linear(f"{layer}.output.dense", hidden, inner)
        yield from norm(f"{layer}.output.LayerNorm")
    yield from linear("classifier.dense", hidden, hidden)
    yield from linear("classifier.out_proj", 1, hidden)


def _write_tokenizer(folder: Path) -> None:
    """The embedded model's: a part of XLM-R's vocabulary, for real texts at real cost."""
    shutil.copyfile(EMBEDDED_FOLDER / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    config = {
        "tokenizer_class": "XLMRobertaTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "model_max_length": 8192,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
