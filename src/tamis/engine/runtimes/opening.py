"""Checkpoint and settings -> a running encoder: which library, device, dtype and files."""

import hashlib
import json
import logging
import tempfile
from importlib.metadata import version
from pathlib import Path

from tamis.engine import device
from tamis.engine.calibration import CalibrationReport, read_report
from tamis.engine.checkpoint import (
    FORMAT_VERSION,
    RUNTIME_FOLDER,
    Checkpoint,
    Dtype,
    read_checkpoint,
)
from tamis.engine.conversion import convert, stored_dtype
from tamis.engine.kernel_tuning import WORTH_SECONDS, tune_kernels
from tamis.engine.manifest import read_manifest, verify_manifest
from tamis.engine.runtimes.base import Runtime
from tamis.engine.runtimes.kernels import settle_kernels
from tamis.engine.tuning import DEFAULT_BATCH_TOKENS, Tuning, read_tuning, tune
from tamis.engine.weights import read_weights
from tamis.errors import ModelError, RuntimeUnavailableError
from tamis.settings import ModelSettings

logger = logging.getLogger(__name__)


def open_runtime(settings: ModelSettings, checkpoint: Checkpoint, *, reads_tokens: bool) -> Runtime:
    """Put a checkpoint's encoder on the device that was asked for.

    Raises:
        RuntimeUnavailableError: the library, device or dtype is not to be had here.
    """
    threads = settings.threads or device.usable_cores()
    if settings.runtime == "torch":
        return _open_torch(settings, checkpoint, threads, reads_tokens=reads_tokens)
    return _open_ctranslate2(settings, checkpoint, threads, reads_tokens=reads_tokens)


def converted_folder(checkpoint: Checkpoint, *, dtype: str, cache_dir: Path) -> Path:
    """Where the converted form of a checkpoint stands in the cache, or will stand."""
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in checkpoint.name)
    key = _fingerprint(checkpoint.folder)[:16]
    return cache_dir / "converted" / f"{name}-{stored_dtype(dtype)}-{key}"


def _open_ctranslate2(
    settings: ModelSettings, checkpoint: Checkpoint, threads: int, *, reads_tokens: bool
) -> Runtime:
    cpu_dtype = checkpoint.cpu_dtype
    if settings.dtype == "auto" and settings.device != "cuda":
        cpu_dtype = auto_dtype(checkpoint, settings)
    if settings.device != "cuda":
        wanted = cpu_dtype if settings.dtype == "auto" else settings.dtype
        _settle_kernels(settings, checkpoint, wanted, threads)
    from tamis.engine.runtimes import ctranslate2  # now: it reads its environment when imported

    where = device.resolve_device(settings.device, cuda_available=ctranslate2.cuda_available())
    dtype = _resolve_dtype(settings.dtype, where, cpu_dtype, ctranslate2.computed_dtypes(where))

    def opened(folder: Path) -> ctranslate2.CTranslate2Runtime:
        tuning = read_tuning(folder, dtype=dtype, threads=threads) if where == "cpu" else None
        return ctranslate2.CTranslate2Runtime(
            folder / RUNTIME_FOLDER,
            device=where,
            dtype=dtype,
            threads=threads,
            max_batch_tokens=tuning.max_batch_tokens if tuning else DEFAULT_BATCH_TOKENS[where],
            reads_tokens=reads_tokens,
        )

    if checkpoint.converted_dtype is not None:
        _require_stored(checkpoint, settings.dtype)
        return opened(checkpoint.folder)
    folder = converted_folder(checkpoint, dtype=dtype, cache_dir=settings.cache_dir)
    try:
        made = not _is_whole(folder)
        if made:
            convert(checkpoint, folder, dtype=dtype)
    except OSError as error:
        logger.warning("cannot keep the converted model in %s: %s", folder.parent, error)
        with tempfile.TemporaryDirectory() as temporary:
            return opened(convert(checkpoint, Path(temporary) / "converted", dtype=dtype))
    runtime = opened(folder)
    if made and where == "cpu":
        tuning = _tune(runtime, folder, checkpoint, threads, WORTH_SECONDS)
        runtime.max_batch_tokens = tuning.max_batch_tokens
    return runtime


def tune_converted(folder: Path, *, threads: int, worth_seconds: float = WORTH_SECONDS) -> Tuning:
    """Measure a converted model's token budget and kernels on this CPU, and store them there.

    Args:
        folder: The converted model.
        threads: CPU threads of one forward pass.
        worth_seconds: See `tune_kernels`.

    Raises:
        ModelError: it is no converted model, or cannot be opened.
    """
    checkpoint = read_checkpoint(folder)
    settle_kernels()
    from tamis.engine.runtimes import ctranslate2  # now: it reads its environment when imported

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
        return _tune(runtime, folder, checkpoint, threads, worth_seconds)
    finally:
        runtime.close()


def _tune(
    runtime: Runtime, folder: Path, checkpoint: Checkpoint, threads: int, worth_seconds: float
) -> Tuning:
    """Measure what suits this CPU: the token budget here, then other kernels beside it."""
    length = checkpoint.max_length
    return tune_kernels(
        tune(runtime, folder, threads=threads, max_length=length),
        settle_kernels(),
        folder,
        dtype=runtime.dtype,
        threads=threads,
        max_length=length,
        reads_tokens=checkpoint.maxsim is not None,
        worth_seconds=worth_seconds,
    )


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
    tuning = read_tuning(folder, dtype=dtype, threads=threads)
    settle_kernels(tuning.kernels if tuning else None)


def _is_whole(folder: Path) -> bool:
    try:
        return verify_manifest(folder) is not None
    except ModelError as error:
        logger.warning("the converted model is made again: %s", error)
        return False


def _open_torch(
    settings: ModelSettings, checkpoint: Checkpoint, threads: int, *, reads_tokens: bool
) -> Runtime:
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
    return torch.TorchRuntime(
        checkpoint,
        read_weights(checkpoint),
        device=where,
        dtype=dtype,
        threads=threads,
        reads_tokens=reads_tokens,
    )


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


def _fingerprint(folder: Path) -> str:
    """Changes whenever a checkpoint's files do: their digests, or their sizes and times."""
    state: object = read_manifest(folder)
    if state is None:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        state = [str(folder.resolve())] + [
            [path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files
        ]
    content = json.dumps([FORMAT_VERSION, version("ctranslate2"), state], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
