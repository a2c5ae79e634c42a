"""Checkpoint and settings -> a running encoder: which library, device and dtype."""

import logging
from dataclasses import dataclass
from pathlib import Path

from tamis.engine import device
from tamis.engine.calibration import read_report
from tamis.engine.checkpoint import RUNTIME_FOLDER, Checkpoint, Dtype, read_checkpoint
from tamis.engine.converted import converted_folder
from tamis.engine.runtimes import ctranslate2
from tamis.engine.runtimes.base import Runtime
from tamis.engine.tuning import DEFAULT_BATCH_TOKENS, Tuning, read_tuning, tune
from tamis.engine.weights import read_weights
from tamis.errors import ModelError, RuntimeUnavailableError
from tamis.settings import ModelSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RuntimePlan:
    """What a model will run on.

    Attributes:
        library: `ctranslate2` or `torch`.
        dtype: What it computes in.
        threads: CPU threads of one forward pass.
    """

    library: str
    device: str
    dtype: str
    threads: int


def plan_runtime(settings: ModelSettings, checkpoint: Checkpoint) -> RuntimePlan:
    """What a checkpoint runs on here, as its settings ask.

    Raises:
        RuntimeUnavailableError: the library, device or dtype is not to be had here.
    """
    threads = settings.threads or device.usable_cores()
    if settings.runtime == "torch":
        return _plan_torch(settings, checkpoint, threads)
    where = device.resolve_device(settings.device, cuda_available=ctranslate2.cuda_available())
    cpu_dtype = checkpoint.cpu_dtype
    if settings.dtype == "auto" and where == "cpu":
        cpu_dtype = auto_dtype(checkpoint, settings.cache_dir)
    dtype = _resolve_dtype(settings.dtype, where, cpu_dtype, ctranslate2.computed_dtypes(where))
    if checkpoint.converted_dtype is not None:
        _require_stored(checkpoint, settings.dtype)
    return RuntimePlan("ctranslate2", where, dtype, threads)


def open_ctranslate2(
    folder: Path, plan: RuntimePlan, *, reads_tokens: bool
) -> ctranslate2.CTranslate2Runtime:
    """The encoder of a converted model, with the token budget that was measured for it.

    Raises:
        RuntimeUnavailableError: its files are spoilt, or the device has no room for them.
    """
    tuning = None
    if plan.device == "cpu":
        tuning = read_tuning(folder, dtype=plan.dtype, threads=plan.threads)
    return ctranslate2.CTranslate2Runtime(
        folder / RUNTIME_FOLDER,
        device=plan.device,
        dtype=plan.dtype,
        threads=plan.threads,
        max_batch_tokens=tuning.max_batch_tokens if tuning else DEFAULT_BATCH_TOKENS[plan.device],
        reads_tokens=reads_tokens,
    )


def open_torch(checkpoint: Checkpoint, plan: RuntimePlan, *, reads_tokens: bool) -> Runtime:
    """A checkpoint's encoder, straight from its safetensors."""
    from tamis.engine.runtimes import torch

    return torch.TorchRuntime(
        checkpoint,
        read_weights(checkpoint),
        device=plan.device,
        dtype=plan.dtype,
        threads=plan.threads,
        reads_tokens=reads_tokens,
    )


def tune_converted(folder: Path, *, threads: int) -> Tuning:
    """Measure the token budget of a converted model on this machine's CPU and store it there.

    Raises:
        ModelError: it is no converted model, or cannot be opened.
    """
    checkpoint = read_checkpoint(folder)
    computed = ctranslate2.computed_dtypes("cpu")
    runtime = ctranslate2.CTranslate2Runtime(
        folder / RUNTIME_FOLDER,
        device="cpu",
        dtype=_resolve_dtype("auto", "cpu", checkpoint.cpu_dtype, computed),
        threads=threads,
        max_batch_tokens=DEFAULT_BATCH_TOKENS["cpu"],
        reads_tokens=checkpoint.maxsim is not None,
    )
    try:
        return tune(runtime, folder, threads=threads, max_length=checkpoint.max_length)
    finally:
        runtime.close()


def _plan_torch(settings: ModelSettings, checkpoint: Checkpoint, threads: int) -> RuntimePlan:
    try:
        from tamis.engine.runtimes import torch
    except ImportError as error:
        raise RuntimeUnavailableError(
            "runtime torch is not installed; `pip install tamis[torch]`"
        ) from error
    if checkpoint.converted_dtype is not None:
        raise RuntimeUnavailableError(
            f"{checkpoint.folder} is converted for ctranslate2; torch runs its source"
        )
    where = device.resolve_device(settings.device, cuda_available=torch.cuda_available())
    cpu_dtype = "float32" if checkpoint.cpu_dtype == "int8" else checkpoint.cpu_dtype
    dtype = _resolve_dtype(settings.dtype, where, cpu_dtype, torch.computed_dtypes(where))
    return RuntimePlan("torch", where, dtype, threads)


def auto_dtype(checkpoint: Checkpoint, cache_dir: Path) -> Dtype:
    """int8 in place of float32 where a calibration report stands for it; the log says why."""
    if checkpoint.converted_dtype is not None or checkpoint.cpu_dtype != "float32":
        return checkpoint.cpu_dtype
    try:
        report = read_report(converted_folder(checkpoint, dtype="int8", cache_dir=cache_dir))
    except ModelError as error:
        logger.warning("%s computes in float32: %s", checkpoint.name, error)
        return "float32"
    dtype: Dtype = "float32"
    reason = "int8 has no calibration report (`tamis models calibrate` makes one)"
    if report is not None:
        dtype = "float32" if report.shortcomings else "int8"
        reason = f"the calibration report of int8 {report.verdict}"
    logger.info("%s computes in %s: %s", checkpoint.name, dtype, reason)
    return dtype


def _resolve_dtype(asked: str, where: str, cpu_dtype: str, computed: frozenset[str]) -> str:
    dtype, note = device.resolve_dtype(asked, device=where, cpu_dtype=cpu_dtype, computed=computed)
    if note:
        logger.warning("%s", note)
    return dtype


def _require_stored(checkpoint: Checkpoint, asked: str) -> None:
    """Refuse to compute in more precision than the conversion has kept.

    Rows that the source itself stores in int8 lose nothing where the folder was converted to
    compute in floats.
    """
    stored = checkpoint.converted_dtype
    rounded_to_int8 = stored == checkpoint.cpu_dtype == "int8" and asked not in ("auto", "int8")
    rounded_to_half = stored == "float16" and asked == "float32"
    if rounded_to_int8 or rounded_to_half:
        raise RuntimeUnavailableError(
            f"{checkpoint.folder} was converted to {stored} and cannot give {asked} back; "
            "convert its source again"
        )
