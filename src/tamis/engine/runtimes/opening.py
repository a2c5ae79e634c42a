"""Checkpoint and settings -> a running encoder: which library, device and dtype."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tamis.engine import device
from tamis.engine.calibration import CalibrationReport, read_report
from tamis.engine.checkpoint import RUNTIME_FOLDER, Checkpoint, Dtype, read_checkpoint
from tamis.engine.ctranslate2.converted import converted_folder
from tamis.engine.ctranslate2.kernel_tuning import tune_kernels
from tamis.engine.ctranslate2.kernels import settle_kernels
from tamis.engine.ctranslate2.tuning import DEFAULT_BATCH_TOKENS, Tuning, read_tuning, tune
from tamis.engine.heads.registry import read_head
from tamis.engine.runtime import Runtime
from tamis.engine.weights import read_weights
from tamis.errors import ModelError, RuntimeUnavailableError
from tamis.settings import ModelSettings

if TYPE_CHECKING:  # it is imported late: CTranslate2 reads its environment then
    from tamis.engine.ctranslate2.runtime import CTranslate2Runtime

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
    cpu_dtype = checkpoint.cpu_dtype
    if settings.device != "cuda":
        if settings.dtype == "auto":
            cpu_dtype = auto_dtype(checkpoint, settings)
        wanted = cpu_dtype if settings.dtype == "auto" else settings.dtype
        _settle_kernels(settings, checkpoint, wanted, threads)
    from tamis.engine.ctranslate2 import (
        runtime as ctranslate2,  # now: it reads its environment when imported
    )

    where = device.resolve_device(settings.device, cuda_available=ctranslate2.cuda_available())
    dtype = _resolve_dtype(settings.dtype, where, cpu_dtype, ctranslate2.computed_dtypes(where))
    if checkpoint.converted_dtype is not None:
        _require_stored(checkpoint, settings.dtype)
    return RuntimePlan("ctranslate2", where, dtype, threads)


def open_ctranslate2(
    folder: Path, plan: RuntimePlan, *, reads_tokens: bool
) -> "CTranslate2Runtime":
    """The encoder of a converted model, with the token budget that was measured for it.

    Raises:
        RuntimeUnavailableError: its files are spoilt, or the device has no room for them.
    """
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


def open_torch(checkpoint: Checkpoint, plan: RuntimePlan, *, reads_tokens: bool) -> Runtime:
    """A checkpoint's encoder, straight from its safetensors."""
    from tamis.engine.torch import runtime as torch

    return torch.TorchRuntime(
        checkpoint,
        read_weights(checkpoint),
        device=plan.device,
        dtype=plan.dtype,
        threads=plan.threads,
        reads_tokens=reads_tokens,
    )


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
    from tamis.engine.ctranslate2 import (
        runtime as ctranslate2,  # now: it reads its environment when imported
    )

    computed = ctranslate2.computed_dtypes("cpu")
    runtime = ctranslate2.CTranslate2Runtime(
        folder / RUNTIME_FOLDER,
        device="cpu",
        dtype=_resolve_dtype("auto", "cpu", checkpoint.cpu_dtype, computed),
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


def _settle_kernels(
    settings: ModelSettings, checkpoint: Checkpoint, wanted: str, threads: int
) -> None:
    """Have CTranslate2 take what was measured for this model, before it is imported.

    So it cannot be asked which dtypes it computes in: no half precision on a CPU.
    """
    dtype = "float32" if wanted in device.HALF_PRECISION else wanted
    folder = checkpoint.folder
    if checkpoint.converted_dtype is None:
        folder = converted_folder(checkpoint, dtype=dtype, cache_dir=settings.cache_dir)
    tuning = read_tuning(folder, dtype=dtype, threads=threads, quietly=True)
    settle_kernels(tuning.kernels if tuning else None)


def _plan_torch(settings: ModelSettings, checkpoint: Checkpoint, threads: int) -> RuntimePlan:
    try:
        from tamis.engine.torch import runtime as torch
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


def auto_dtype(checkpoint: Checkpoint, settings: ModelSettings) -> Dtype:
    """What `auto` computes in on a CPU; the log says why where int8 is in question.

    A converted folder computes in what it was converted for: whoever made it said so, and nothing
    else is left in it. A source gets int8 where a calibration report stands for it, and not
    because its own tamis.json names int8: that is a wish, which can be checked here.
    """
    if checkpoint.converted_dtype is not None:
        if checkpoint.cpu_dtype == "int8":
            logger.info("%s computes in int8 on a CPU: it was converted for it", checkpoint.name)
        return checkpoint.cpu_dtype
    if checkpoint.cpu_dtype not in ("float32", "int8"):
        return checkpoint.cpu_dtype
    try:
        report = read_report(
            converted_folder(checkpoint, dtype="int8", cache_dir=settings.cache_dir)
        )
    except ModelError as error:
        logger.warning("%s computes in float32 on a CPU: %s", checkpoint.name, error)
        return "float32"
    dtype, reason = _judge(report, min(settings.max_length, checkpoint.max_length))
    if checkpoint.cpu_dtype == "int8" and dtype != "int8":
        reason = f"{reason}; that tamis.json names int8 is no report"
    logger.info("%s computes in %s on a CPU: %s", checkpoint.name, dtype, reason)
    return dtype


def _judge(report: CalibrationReport | None, max_length: int) -> tuple[Dtype, str]:
    """int8 or float32, and why, for pairs of at most `max_length` tokens."""
    if report is None:
        return "float32", "int8 has no calibration report (`tamis models calibrate` makes one)"
    if report.max_length < max_length:
        return "float32", (
            f"the calibration report of int8 is for pairs of at most {report.max_length} tokens, "
            f"and they may have {max_length} now"
        )
    reason = f"the calibration report of int8 {report.verdict}"
    if report.max_length > max_length:
        reason += f" (with up to {report.max_length} tokens a pair, {max_length} now)"
    if report.processor != device.processor_name():
        reason += f" (on another processor: {report.processor})"
    return "float32" if report.shortcomings else "int8", reason


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
