"""How much memory is taken and left, and what loading leaves in the allocator, given back."""

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_OUT_OF_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "can't allocate memory",
    "status_alloc_failed",
    "std::bad_alloc",
)


def release_unused() -> bool:
    """Give freed memory back; glibc alone keeps it otherwise.

    Returns:
        Whether this C library has a way to.
    """
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; TypeError on Windows
        return False
    trim(ctypes.c_size_t(0))
    return True


def available_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Memory that this process may still take, within the machine and its container.

    Args:
        meminfo: Linux' /proc/meminfo.
        cgroup: A folder of cgroup v2. What its files' pages take can be had back, so that only
            anonymous memory counts against its limit.

    Returns:
        None where the system does not say.
    """
    fields = _fields(meminfo)
    if "MemAvailable:" not in fields:
        return None
    free = fields["MemAvailable:"] * 1024
    try:
        limit = (cgroup / "memory.max").read_text(encoding="utf-8").strip()
    except OSError:
        return free
    if not limit.isdecimal():  # `max`: no limit
        return free
    return min(free, int(limit) - _fields(cgroup / "memory.stat").get("anon", 0))


def _fields(path: Path) -> dict[str, int]:
    """The first number of each line by the line's first word; nothing where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdecimal()}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library failed for lack of memory; each says so in its own way (docs/gpu.md)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True  # numpy's, Python's; torch's, which is not imported for that
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)


def resident_bytes(process_id: int) -> int | None:
    """Memory that a process has in place now; None where it is gone, or the system tells none."""
    fields = _fields(Path(f"/proc/{process_id}/status"))
    return fields["VmRSS:"] * 1024 if "VmRSS:" in fields else None


def cuda_memory() -> list[tuple[int, int]]:
    """Of each GPU the bytes that torch holds, and all there are.

    Nothing where torch is not loaded, or has not been asked for a GPU: to look would start one.
    """
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)  # it may just be being imported
    if not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return []
    return [
        (cuda.memory_reserved(number), cuda.get_device_properties(number).total_memory)
        for number in range(cuda.device_count())
    ]
