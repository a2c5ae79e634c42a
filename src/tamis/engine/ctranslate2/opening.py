"""Checkpoint and settings -> a running encoder of CTranslate2: which device, dtype and kernels."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tamis.engine.checkpoint import RUNTIME_FOLDER, Checkpoint, read_checkpoint
from tamis.engine.ctranslate2.converted import converted, converted_folder
from tamis.engine.ctranslate2.kernel_tuning import tune_kernels
from tamis.engine.ctranslate2.kernels import settle_kernels
from tamis.engine.ctranslate2.precision import auto_dtype, require_stored
from tamis.engine.ctranslate2.tuning import Tuning, read_tuning, tune
from tamis.engine.device import HALF_PRECISION, resolve_device, usable_cores
from tamis.engine.heads.reading import read_head
from tamis.engine.library import OpenedModel, ReadTexts, settle_dtype
from tamis.engine.manifest import folder_digest, verified_digests
from tamis.engine.runtime import DEFAULT_BATCH_TOKENS, Runtime
from tamis.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a model will run on.

    Attributes:
        dtype: What it computes in.
        threads: CPU threads of one forward pass.
    """

    device: str
    dtype: str
    threads: int


def open_model(
    settings: ModelSettings, checkpoint: Checkpoint, read_texts: ReadTexts
) -> OpenedModel:
    """Open a model; tokenizer and weights are read in parallel, one core each."""
    plan = _plan(settings, checkpoint)
    reads_tokens = read_head(checkpoint).reads_tokens
    with (
        converted(checkpoint, dtype=plan.dtype, cache_dir=settings.cache_dir) as model,
        ThreadPoolExecutor(1) as thread,
    ):
        opening = thread.submit(_open_runtime, model.folder, plan, reads_tokens=reads_tokens)
        try:
            texts = read_texts(read_checkpoint(model.folder))
        except BaseException:
            opening.add_done_callback(_close_opened)
            raise
        runtime = opening.result()
        digest = folder_digest(verified_digests(model.folder))
    return OpenedModel(runtime, texts, digest, model.folder if model.is_kept else None)


def tune_converted(folder: Path, *, threads: int) -> Tuning:
    """Measure a converted model's token budget and kernels on this CPU, and store them there.

    Args:
        folder: The converted model.
        threads: CPU threads of one forward pass.

    Raises:
        ModelError: it is no converted model, or cannot be opened.
    """
    checkpoint = read_checkpoint(folder)
    reads_tokens = read_head(checkpoint).reads_tokens
    settle_kernels()
    from tamis.engine.ctranslate2 import runtime as ctranslate2  # now, as in `_plan`

    computed = ctranslate2.computed_dtypes("cpu")
    runtime = ctranslate2.CTranslate2Runtime(
        folder / RUNTIME_FOLDER,
        device="cpu",
        dtype=settle_dtype("auto", where="cpu", cpu_dtype=checkpoint.cpu_dtype, computed=computed),
        threads=threads,
        max_batch_tokens=DEFAULT_BATCH_TOKENS["cpu"],
        reads_tokens=reads_tokens,
    )
    try:
        length = checkpoint.max_length
        return tune_kernels(
            tune(runtime, folder, threads=threads, max_length=length),
            settle_kernels(),
            folder,
            dtype=runtime.dtype,
            threads=threads,
            max_length=length,
            reads_tokens=reads_tokens,
        )
    finally:
        runtime.close()


def _plan(settings: ModelSettings, checkpoint: Checkpoint) -> _Plan:
    threads = settings.threads or usable_cores()
    cpu_dtype = checkpoint.cpu_dtype
    if settings.device != "cuda":
        if settings.dtype == "auto":
            cpu_dtype = auto_dtype(checkpoint, settings)
        wanted = cpu_dtype if settings.dtype == "auto" else settings.dtype
        _settle_kernels(settings, checkpoint, wanted, threads)
    from tamis.engine.ctranslate2 import runtime  # now: CTranslate2 reads its environment then

    where = resolve_device(settings.device, cuda_available=runtime.cuda_available())
    computed = runtime.computed_dtypes(where)
    dtype = settle_dtype(settings.dtype, where=where, cpu_dtype=cpu_dtype, computed=computed)
    if checkpoint.converted_dtype is not None:
        require_stored(checkpoint, settings.dtype)
    return _Plan(where, dtype, threads)


def _open_runtime(folder: Path, plan: _Plan, *, reads_tokens: bool) -> Runtime:
    """The encoder of a converted model, with the token budget that was measured for it."""
    from tamis.engine.ctranslate2.runtime import CTranslate2Runtime

    tuning = None
    if plan.device == "cpu":
        tuning = read_tuning(folder, dtype=plan.dtype, threads=plan.threads)
    return CTranslate2Runtime(
        folder / RUNTIME_FOLDER,
        device=plan.device,
        dtype=plan.dtype,
        threads=plan.threads,
        max_batch_tokens=tuning.max_batch_tokens if tuning else DEFAULT_BATCH_TOKENS[plan.device],
        reads_tokens=reads_tokens,
    )


def _close_opened(opening: Future[Runtime]) -> None:
    if opening.exception() is None:
        opening.result().close()


def _settle_kernels(
    settings: ModelSettings, checkpoint: Checkpoint, wanted: str, threads: int
) -> None:
    """Have CTranslate2 take what was measured for this model, before it is imported.

    So it cannot be asked which dtypes it computes in: no half precision on a CPU.
    """
    dtype = "float32" if wanted in HALF_PRECISION else wanted
    folder = checkpoint.folder
    if checkpoint.converted_dtype is None:
        folder = converted_folder(checkpoint, dtype=dtype, cache_dir=settings.cache_dir)
    tuning = read_tuning(folder, dtype=dtype, threads=threads, quietly=True)
    settle_kernels(tuning.kernels if tuning else None)
