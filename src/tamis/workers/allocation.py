"""Which cores, or which CUDA device, each worker gets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tamis.engine.device import usable_cores
from tamis.settings import ModelSettings

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
_NVIDIA_DEVICES = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Allocation:
    """One worker's cores and device.

    Attributes:
        threads: CPU threads of a forward pass.
        cores: The cores it is pinned to; None if the system schedules it freely.
        environment: Variables it gets in addition to the server's.
    """

    threads: int
    cores: tuple[int, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def allocate(n_workers: int, settings: ModelSettings) -> list[Allocation]:
    """Divide this process's cores among workers, and assign CUDA devices round robin."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    n_usable = usable_cores()
    allocations = allocate_cores(n_workers, cores, n_usable=n_usable, threads=settings.threads)
    if settings.device == "cpu":
        return allocations
    devices = cuda_devices(os.environ)
    if not devices:
        return allocations
    return [
        replace(allocation, environment={DEVICES_VARIABLE: devices[number % len(devices)]})
        for number, allocation in enumerate(allocations)
    ]


def allocate_cores(
    n_workers: int, cores: list[int], *, n_usable: int, threads: int = 0
) -> list[Allocation]:
    """Adjacent cores for each worker.

    Workers are not pinned if a quota allows less than the cores there are, if there are fewer
    cores than workers, or if the user sets the number of threads: the system schedules better then.

    Args:
        n_workers: How many workers.
        cores: The cores that this process may run on.
        n_usable: How many of them its CPU quota is worth.
        threads: Threads per worker, if the user sets them; otherwise 0.
    """
    each = threads or max(1, n_usable // n_workers)
    if n_workers == 1 or threads or len(cores) != n_usable or n_usable < n_workers:
        return [Allocation(each)] * n_workers
    return [
        Allocation(each, tuple(cores[number * each : (number + 1) * each]))
        for number in range(n_workers)
    ]


def cuda_devices(environment: Mapping[str, str], folder: Path = _NVIDIA_DEVICES) -> list[str]:
    """Devices as CUDA_VISIBLE_DEVICES names them, found without loading a CUDA library.

    Args:
        environment: In which the user may have named them already.
        folder: In which NVIDIA's driver lists them.
    """
    named = environment.get(DEVICES_VARIABLE)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    try:
        return [str(number) for number, _ in enumerate(folder.iterdir())]
    except OSError:
        return []
