"""How much memory a process has needed."""

from pathlib import Path


def peak_memory_bytes(process_id: int | None = None) -> int | None:
    """High-water mark of a process's resident memory; None where the system tells none.

    The kernel resets `VmHWM` when a program starts; `getrusage` would include what the process
    that started it had needed.

    Args:
        process_id: This process if None.
    """
    try:
        status = Path(f"/proc/{process_id or 'self'}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.removesuffix("kB")) * 1024
    return None
