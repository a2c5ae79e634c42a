"""Checkpoint and settings -> a running encoder of torch, straight from its safetensors."""

from tamis.engine.checkpoint import Checkpoint
from tamis.engine.device import resolve_device, usable_cores
from tamis.engine.library import OpenedModel, ReadTexts, settle_dtype
from tamis.engine.manifest import folder_digest, verify_manifest
from tamis.engine.memory import release_unused
from tamis.engine.weights import read_weights
from tamis.errors import RuntimeUnavailableError
from tamis.settings import ModelSettings


def open_model(
    settings: ModelSettings, checkpoint: Checkpoint, read_texts: ReadTexts
) -> OpenedModel:
    """Open a model from its checkpoint."""
    try:
        from tamis.engine.torch import runtime
    except ImportError as error:
        raise RuntimeUnavailableError(
            "runtime torch is not installed; `pip install tamis[torch]`"
        ) from error
    if checkpoint.converted_dtype is not None:
        raise RuntimeUnavailableError(
            f"{checkpoint.folder} is converted for ctranslate2; torch runs its source"
        )
    where = resolve_device(settings.device, cuda_available=runtime.cuda_available())
    cpu_dtype = "float32" if checkpoint.cpu_dtype == "int8" else checkpoint.cpu_dtype
    computed = runtime.computed_dtypes(where)
    dtype = settle_dtype(settings.dtype, where=where, cpu_dtype=cpu_dtype, computed=computed)
    verify_manifest(checkpoint.folder, known=checkpoint.content)
    tokenizer, head = read_texts(checkpoint)
    release_unused()  # the vocabulary as Python objects, before the weights need the room
    encoder = runtime.TorchRuntime(
        checkpoint,
        read_weights(checkpoint),
        device=where,
        dtype=dtype,
        threads=settings.threads or usable_cores(),
        reads_tokens=head.reads_tokens,
    )
    return OpenedModel(encoder, (tokenizer, head), folder_digest(checkpoint.content))
