"""Which device, dtype and how many threads: what was asked for against what is there."""

import math
import os
from pathlib import Path

from tamis.errors import RuntimeUnavailableError

HALF_PRECISION = ("float16", "bfloat16")
_CPU_FLAGS = {"float16": {"avx512_fp16", "amx_fp16"}, "bfloat16": {"avx512_bf16", "amx_bf16"}}
_QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores this process may use: its affinity, and its container's quota rounded up."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(cores, _quota_cores(_QUOTA_FILE) or cores))


def resolve_device(asked: str, *, cuda_available: bool) -> str:
    """`cpu` or `cuda`.

    Raises:
        RuntimeUnavailableError: CUDA was asked for and the runtime sees none.
    """
    if asked == "cuda" and not cuda_available:
        raise RuntimeUnavailableError("device cuda was asked for, and there is no CUDA device here")
    return "cuda" if cuda_available and asked != "cpu" else "cpu"


def resolve_dtype(asked: str, *, device: str, cpu_dtype: str) -> tuple[str, str | None]:
    """The dtype to compute in, and a sentence for the log where it is not the one asked for.

    Args:
        asked: A dtype or `auto`.
        device: `cpu` or `cuda`.
        cpu_dtype: What `auto` takes on a CPU.
    """
    if device == "cuda":
        return ("float16" if asked == "auto" else asked), None
    dtype = cpu_dtype if asked == "auto" else asked
    if dtype in HALF_PRECISION and not cpu_computes(dtype):
        return "float32", f"this CPU has no {dtype} arithmetic; float32 is used instead"
    return dtype, None


def cpu_computes(dtype: str) -> bool:
    """Whether this CPU has instructions for a half-precision dtype."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(_CPU_FLAGS[dtype] & set(flags.split()))


def _quota_cores(path: Path) -> int | None:
    try:
        quota, period = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else math.ceil(int(quota) / int(period))
