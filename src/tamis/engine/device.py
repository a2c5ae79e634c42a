"""Which device, dtype and how many threads: what was asked for against what is there."""

import math
import os
import platform
import sys
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tamis.errors import RuntimeUnavailableError

HALF_PRECISION = ("float16", "bfloat16")
_CPU_FLAGS = {"float16": {"avx512_fp16", "amx_fp16"}, "bfloat16": {"avx512_bf16", "amx_bf16"}}
_SPEED_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
_AVX512_FLAGS = {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"}
_CGROUPS = Path("/sys/fs/cgroup")
_PROCESS_CGROUP = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, process_cgroup: Path = _PROCESS_CGROUP) -> int:
    """Cores this process may use: its affinity, and the CPU limit of its cgroups rounded up.

    Args:
        cgroups: Where cgroups are mounted, version 2 (`cpu.max`) or 1 (`cpu/cpu.cfs_quota_us`).
        process_cgroup: Which cgroups this process is in; their parents' limits hold as well.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = min(_quotas(cgroups, process_cgroup), default=None)
    return cores if quota is None else max(1, min(cores, quota))


def resolve_device(asked: str, *, cuda_available: bool) -> str:
    """`cpu` or `cuda`.

    Raises:
        RuntimeUnavailableError: CUDA was asked for and the runtime sees none.
    """
    if asked == "cuda" and not cuda_available:
        raise RuntimeUnavailableError("device cuda was requested, but there is no CUDA device")
    return "cuda" if cuda_available and asked != "cpu" else "cpu"


def resolve_dtype(
    asked: str, *, device: str, cpu_dtype: str, computed: Collection[str]
) -> tuple[str, str | None]:
    """The dtype to compute in, and a sentence for the log where it is not the one asked for.

    Args:
        asked: A dtype, or `auto`.
        device: `cpu` or `cuda`.
        cpu_dtype: What `auto` takes on a CPU.
        computed: What the runtime computes in on this device.

    Raises:
        RuntimeUnavailableError: the runtime does not compute in it, and it is no half precision
            on a CPU, for which float32 stands in.
    """
    auto = "float16" if device == "cuda" else cpu_dtype
    dtype = auto if asked == "auto" else asked
    if dtype in computed:
        return dtype, None
    if device == "cpu" and dtype in HALF_PRECISION:
        return "float32", f"no {dtype} arithmetic on this CPU; float32 is used instead"
    raise RuntimeUnavailableError(
        f"there is no {dtype} on {device} here, only {', '.join(sorted(computed))}"
    )


def cpu_computes(dtype: str) -> bool:
    """Whether this CPU has instructions for a half-precision dtype."""
    return bool(_CPU_FLAGS[dtype] & set(_processor().get("flags", "").split()))


def processor_name() -> str:
    """What tells one kind of processor from another: name, family, model, widest instructions."""
    fields = _processor()
    flags = set(fields.get("flags", "").split())
    widest = " ".join(flag for flag in _SPEED_FLAGS if flag in flags)
    named = [fields.get(name, "") for name in ("model name", "cpu family", "model")]
    name, family, model = named if any(named) else [platform.machine(), "?", "?"]
    return f"{name} (family {family} model {model}, {widest})"


def hardware_name(device: str) -> str:
    """What kind of device it is; a GPU's name is known where torch has been asked for it."""
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    if device == "cpu":
        return processor_name()
    known = hasattr(cuda, "is_initialized") and cuda.is_initialized()
    return str(cuda.get_device_name()) if known else device


def processor_vendor() -> str | None:
    """Who made this processor, as an x86 processor says itself; None elsewhere."""
    return _processor().get("vendor_id")


def has_avx512() -> bool:
    """Whether this processor has what CTranslate2 asks of one for its AVX-512 kernels."""
    return set(_processor().get("flags", "").split()) >= _AVX512_FLAGS


def _processor() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; nothing where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _quotas(cgroups: Path, process_cgroup: Path) -> Iterator[int]:
    """Cores that each limit on this process allows, rounded up."""
    for folder in _folders(cgroups, _own_path(process_cgroup, "")):
        yield from _quota(folder / "cpu.max")
    path = _own_path(process_cgroup, "cpu")
    for mount in ("cpu", "cpu,cpuacct"):
        for folder in _folders(cgroups / mount, path):
            yield from _quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")


def _own_path(process_cgroup: Path, controller: str) -> PurePosixPath:
    """This process's cgroup for a controller of version 1; of version 2 where it is empty."""
    try:
        lines = process_cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return PurePosixPath("/")


def _folders(mount: Path, path: PurePosixPath) -> list[Path]:
    """A cgroup's folder and those around it; in a container its own is the mount."""
    parts = [part for part in path.parts if part not in ("/", "..")]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _quota(*files: Path) -> list[int]:
    """Microseconds of quota and of period, in one file or two; nothing where there is no limit."""
    try:
        quota, period = " ".join(file.read_text(encoding="utf-8") for file in files).split()
        return [] if quota in ("max", "-1") else [max(1, math.ceil(int(quota) / int(period)))]
    except (OSError, ValueError, ArithmeticError):
        return []
