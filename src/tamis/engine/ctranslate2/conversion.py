"""safetensors -> a folder that CTranslate2 loads, made with numpy alone."""

import contextlib
import errno
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from tamis.engine.checkpoint import (
    CONFIG_FILE,
    FORMAT_VERSION,
    RUNTIME_FOLDER,
    TAMIS_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
)
from tamis.engine.ctranslate2.scratch import scratch_folder, sweep
from tamis.engine.files import read_bounded, read_json
from tamis.engine.golden import GOLDEN_FILE
from tamis.engine.heads.reading import read_head
from tamis.engine.manifest import read_manifest, verify_manifest, write_manifest
from tamis.engine.tokenization import read_definition, text_definition
from tamis.engine.weights import QuantizedRows, Weights, read_weights
from tamis.errors import ModelError

if TYPE_CHECKING:
    from ctranslate2.specs.transformer_spec import TransformerEncoderModelSpec

_STORED_DTYPES = {"float32": "float32", "bfloat16": "float32", "float16": "float16", "int8": "int8"}


def stored_dtype(dtype: str) -> str:
    """The dtype of the file that serves computing in `dtype`."""
    return _STORED_DTYPES[dtype]


def convert(checkpoint: Checkpoint, output: Path, *, dtype: str) -> Path:
    """Write a converted model: a folder that loads by itself, without its source.

    It holds CTranslate2's files, the tokenizer as text is read with it, what the head needs,
    `config.json`, `tamis.json` and a manifest. int8 weights are symmetric, one scale a row; a
    checkpoint that stores int8 keeps its own values. Nothing is left behind when it fails.

    Args:
        checkpoint: What to convert.
        output: Folder to make; one that stands there is replaced, unless it is the same.
        dtype: What the model will compute in.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    sweep(output.parent)
    with scratch_folder(output.parent) as scratch:
        made = scratch / "made"
        made.mkdir()  # with the mode of any folder; the one around it is its maker's alone
        _write(checkpoint, made, dtype)
        _put(made, output, aside=scratch)
    return output


def _put(made: Path, output: Path, *, aside: Path) -> None:
    """Rename a finished folder to its place, whole at every moment that another process sees.

    What stands there already is kept when another process made the same, else moved aside.
    """
    attempts = itertools.count()
    while not _renamed(made, output) and not _is_whole_copy(output, made):
        with contextlib.suppress(FileNotFoundError):
            output.rename(aside / f"replaced-{next(attempts)}")


def _renamed(made: Path, output: Path) -> bool:
    """Whether there was room for it; a folder takes the place of none but an empty one."""
    try:
        made.rename(output)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _is_whole_copy(folder: Path, made: Path) -> bool:
    try:
        return read_manifest(folder) == read_manifest(made) and verify_manifest(folder) is not None
    except (ModelError, OSError):
        return False


def _write(checkpoint: Checkpoint, folder: Path, dtype: str) -> None:
    (folder / RUNTIME_FOLDER).mkdir()
    weights = read_weights(checkpoint)
    spec = encoder_spec(checkpoint, weights)
    spec.validate()
    already_int8 = isinstance(spec_source(checkpoint, weights), QuantizedRows)
    stored = "int8" if already_int8 else stored_dtype(dtype)
    spec.optimize(quantization=None if already_int8 else stored)
    spec.save(str(folder / RUNTIME_FOLDER))
    _forget_vocabulary(folder / RUNTIME_FOLDER, spec.config.unk_token)
    (folder / CONFIG_FILE).write_bytes(read_bounded(checkpoint.folder / CONFIG_FILE))
    definition = read_definition(checkpoint.folder)
    (folder / TOKENIZER_FILE).write_bytes(text_definition(definition))
    tensors = read_head(checkpoint).converted_tensors(checkpoint, weights, definition)
    (folder / WEIGHTS_FILE).write_bytes(save(tensors))  # `save_file` keeps others from reading it
    _write_description(checkpoint, folder, computed=dtype, stored=stored)
    write_manifest(folder)
    if (checkpoint.folder / GOLDEN_FILE).exists():  # it grows: the manifest is not for it
        (folder / GOLDEN_FILE).write_bytes(read_bounded(checkpoint.folder / GOLDEN_FILE))


def _forget_vocabulary(folder: Path, unknown: str) -> None:
    """CTranslate2 is given ids, never spellings: reading as many as there are would be wasted.

    It looks for its unknown token alone; the spellings cost 35 MB in an XLM-R's memory.
    """
    (folder / "vocabulary.json").write_text(json.dumps([unknown]), encoding="utf-8")


def spec_source(checkpoint: Checkpoint, weights: Weights) -> NDArray[np.float32] | QuantizedRows:
    """The word embedding as it is stored: it tells in which dtype a checkpoint is."""
    return weights.matrix(f"{checkpoint.family.prefix}embeddings.word_embeddings.weight")


def encoder_spec(checkpoint: Checkpoint, weights: Weights) -> "TransformerEncoderModelSpec":
    """CTranslate2's description of the encoder, with its weights in place."""
    common_spec, transformer_spec = _specifications()
    activations = {"gelu": common_spec.Activation.GELU, "relu": common_spec.Activation.RELU}
    family = checkpoint.family
    encoder = transformer_spec.TransformerEncoderSpec(
        checkpoint.n_layers,
        checkpoint.n_heads,
        pre_norm=False,
        activation=activations[checkpoint.activation],
        layernorm_embedding=True,
        num_source_embeddings=2,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False
    pooled = not read_head(checkpoint).reads_tokens
    spec: TransformerEncoderModelSpec = transformer_spec.TransformerEncoderModelSpec(
        encoder, pooling_layer=pooled
    )
    _set_embeddings(encoder, weights, f"{family.prefix}embeddings", checkpoint.position_offset)
    for number, layer in enumerate(encoder.layer):
        _set_layer(layer, weights, f"{family.prefix}encoder.layer.{number}")
    if pooled:
        _set_linear(spec.pooler_dense, weights, family.pooler)
    n_rows = encoder.embeddings[0].weight.shape[0]
    spec.register_vocabulary([str(token_id) for token_id in range(n_rows)])
    spec.config.layer_norm_epsilon = checkpoint.layer_norm_epsilon
    spec.config.unk_token = "0"  # noqa: S105 - a token of text, no secret
    return spec


def _specifications() -> tuple[Any, Any]:
    """CTranslate2's `common_spec` and `transformer_spec`, imported without torch.

    They import torch where it is installed, for tensors that tamis never hands them; that takes
    seconds. Imported here: CTranslate2 reads its environment then (see kernels.py).
    """
    blocked = "torch" not in sys.modules
    if blocked:
        sys.modules["torch"] = None  # type: ignore[assignment] # so its import fails at once
    try:
        from ctranslate2.specs import common_spec, transformer_spec
    finally:
        if blocked:
            del sys.modules["torch"]
    return common_spec, transformer_spec


def _set_embeddings(encoder: Any, weights: Weights, name: str, position_offset: int) -> None:
    _set_matrix(encoder.embeddings[0], [weights.matrix(f"{name}.word_embeddings.weight")])
    _set_matrix(encoder.embeddings[1], [weights.array(f"{name}.token_type_embeddings.weight")])
    positions = weights.array(f"{name}.position_embeddings.weight")
    encoder.position_encodings.encodings = np.ascontiguousarray(positions[position_offset:])
    _set_norm(encoder.layernorm_embedding, weights, f"{name}.LayerNorm")


def _set_layer(layer: Any, weights: Weights, name: str) -> None:
    parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    _set_linear(layer.self_attention.linear[0], weights, *parts)
    _set_linear(layer.self_attention.linear[1], weights, f"{name}.attention.output.dense")
    _set_norm(layer.self_attention.layer_norm, weights, f"{name}.attention.output.LayerNorm")
    _set_linear(layer.ffn.linear_0, weights, f"{name}.intermediate.dense")
    _set_linear(layer.ffn.linear_1, weights, f"{name}.output.dense")
    _set_norm(layer.ffn.layer_norm, weights, f"{name}.output.LayerNorm")


def _set_linear(spec: Any, weights: Weights, *names: str) -> None:
    """One linear layer; several names are put one below the other (fused QKV)."""
    _set_matrix(spec, [weights.matrix(f"{name}.weight") for name in names])
    spec.bias = np.concatenate([weights.array(f"{name}.bias") for name in names])


def _set_matrix(spec: Any, matrices: list[NDArray[np.float32] | QuantizedRows]) -> None:
    """Copies: quantizing a specification writes into its arrays."""
    quantized = [matrix for matrix in matrices if isinstance(matrix, QuantizedRows)]
    if len(quantized) == len(matrices):
        spec.weight = np.concatenate([matrix.rows for matrix in quantized])
        scales = np.concatenate([matrix.scales for matrix in quantized])
        spec.weight_scale = np.float32(1) / scales  # CTranslate2 divides by its scale
        return
    spec.weight = np.concatenate(
        [m.dequantized() if isinstance(m, QuantizedRows) else m for m in matrices]
    )


def _set_norm(spec: Any, weights: Weights, name: str) -> None:
    spec.gamma = weights.array(f"{name}.weight")
    spec.beta = weights.array(f"{name}.bias")


def _write_description(checkpoint: Checkpoint, folder: Path, *, computed: str, stored: str) -> None:
    source = checkpoint.folder / TAMIS_FILE
    own = read_json(source) if source.exists() else {}
    own["name"] = checkpoint.name
    own["dtype"] = {"cpu": computed}
    own["converted"] = {"dtype": stored, "format": FORMAT_VERSION}
    (folder / TAMIS_FILE).write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
