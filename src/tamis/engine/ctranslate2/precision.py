"""Which dtype a checkpoint gets on a CPU, and which a converted folder can still give."""

import logging

from tamis.engine.calibration import CalibrationReport, read_report
from tamis.engine.checkpoint import Checkpoint, Dtype
from tamis.engine.ctranslate2.converted import converted_folder
from tamis.engine.device import processor_name
from tamis.errors import ModelError, RuntimeUnavailableError
from tamis.settings import ModelSettings

logger = logging.getLogger(__name__)


def auto_dtype(checkpoint: Checkpoint, settings: ModelSettings) -> Dtype:
    """What `auto` computes in on a CPU; the log says why where int8 is in question.

    A converted folder computes in what it was converted for: its maker chose that, and nothing
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


def require_stored(checkpoint: Checkpoint, asked: str) -> None:
    """Refuse to compute in more precision than the conversion has kept.

    Rows that the source itself stores in int8 lose nothing where the folder was converted to
    compute in floats.
    """
    stored = checkpoint.converted_dtype
    rounded_to_int8 = stored == checkpoint.cpu_dtype == "int8" and asked not in ("auto", "int8")
    rounded_to_half = stored == "float16" and asked == "float32"
    if rounded_to_int8 or rounded_to_half:
        raise RuntimeUnavailableError(
            f"{checkpoint.folder} was converted to {stored} and cannot be run in {asked}; "
            "convert its source again"
        )


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
    if report.processor != processor_name():
        reason += f" (on another processor: {report.processor})"
    return "float32" if report.shortcomings else "int8", reason
