"""What each of several workers gets of the machine: cores, or a CUDA device."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tamis.engine.device import usable_cores
from tamis.settings import ModelSettings

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
_NVIDIA_DEVICES = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part.

    Attributes:
        threads: CPU threads of a forward pass.
        cores: The cores it is bound to; None for wherever the system puts it.
        environment: Variables it has besides the server's.
    """

    threads: int
    cores: tuple[int, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def share_out(n_workers: int, settings: ModelSettings) -> list[Share]:
    """Parts for so many workers: of this process's cores, and a CUDA device each in turn."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    n_usable = usable_cores()
    shares = share_cores(n_workers, cores, n_usable=n_usable, threads=settings.threads)
    if settings.device == "cpu":
        return shares
    devices = cuda_devices(os.environ)
    if not devices:
        return shares
    return [
        Share(share.threads, share.cores, {DEVICES_VARIABLE: devices[number % len(devices)]})
        for number, share in enumerate(shares)
    ]


def share_cores(
    n_workers: int, cores: list[int], *, n_usable: int, threads: int = 0
) -> list[Share]:
    """Neighbouring cores for each worker.

    Nobody is bound where a quota allows less than there are cores, where there are fewer cores
    than workers, or where the user says how many threads: the system knows better then.

    Args:
        n_workers: How many parts.
        cores: That this process may run on.
        n_usable: How many of them its quota is worth.
        threads: Of each worker, if the user says so.
    """
    each = threads or max(1, n_usable // n_workers)
    if n_workers == 1 or threads or len(cores) != n_usable or n_usable < n_workers:
        return [Share(each)] * n_workers
    return [
        Share(each, tuple(cores[number * each : (number + 1) * each]))
        for number in range(n_workers)
    ]


def cuda_devices(environment: Mapping[str, str], folder: Path = _NVIDIA_DEVICES) -> list[str]:
    """Devices as CUDA_VISIBLE_DEVICES names them; no CUDA library is loaded to ask.

    Args:
        environment: Where the user may have named them already.
        folder: Where NVIDIA's driver lists them.
    """
    named = environment.get(DEVICES_VARIABLE)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    try:
        return [str(number) for number, _ in enumerate(folder.iterdir())]
    except OSError:
        return []
