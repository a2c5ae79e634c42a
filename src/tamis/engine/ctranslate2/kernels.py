"""How CTranslate2 computes in this process: its matrix library, its vectors, how threads wait.

Matrices: MKL or oneDNN, by the processor's vendor where CT2_USE_MKL is not set (CTranslate2's
src/cpu/backend.cc). All else: AVX2, and AVX-512 only where CT2_FORCE_CPU_ISA asks for it (its
src/cpu/cpu_isa.cc). Both are read once in a process and hold for good: the first when CTranslate2
is imported, which therefore happens late here, the second when it first computes. Its OpenMP
library (libgomp) reads how long a thread spins before it sleeps when it is loaded, so this is set
before the import, too.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from threading import Lock
from typing import Literal

from tamis.engine.device import has_avx512, processor_vendor

logger = logging.getLogger(__name__)

Kernels = Literal["mkl", "onednn", "mkl avx512", "onednn avx512"]
LIBRARY_VARIABLE = "CT2_USE_MKL"
VECTORS_VARIABLE = "CT2_FORCE_CPU_ISA"
SPIN_VARIABLE = "GOMP_SPINCOUNT"
WAIT_POLICY_VARIABLE = "OMP_WAIT_POLICY"
SPIN_COUNT = "2000"
"""How often a thread looks before it sleeps at a barrier: some 0.1 ms.

libgomp's default is 300,000, milliseconds at every barrier. Threads that spin that long take the
core from the thread they wait for as soon as another process wants one.
"""
ENVIRONMENTS: Mapping[Kernels, Mapping[str, str]] = {
    "mkl": {LIBRARY_VARIABLE: "1"},
    "onednn": {LIBRARY_VARIABLE: "0"},
    "mkl avx512": {LIBRARY_VARIABLE: "1", VECTORS_VARIABLE: "AVX512"},
    "onednn avx512": {LIBRARY_VARIABLE: "0", VECTORS_VARIABLE: "AVX512"},
}
_OTHER_VECTORS: Mapping[Kernels, Kernels] = {
    "mkl": "mkl avx512",
    "onednn": "onednn avx512",
    "mkl avx512": "mkl",
    "onednn avx512": "onednn",
}
_OTHER_LIBRARY: Mapping[Kernels, Kernels] = {
    "mkl": "onednn",
    "onednn": "mkl",
    "mkl avx512": "onednn avx512",
    "onednn avx512": "mkl avx512",
}


def own_choice() -> Kernels | None:
    """What CTranslate2 takes by itself; None where its builds have no choice (ARM, macOS)."""
    vendor = processor_vendor()
    if vendor is None:
        return None
    return "mkl" if vendor == "GenuineIntel" else "onednn"


def with_other_vectors(kernels: Kernels) -> Kernels | None:
    """The same library with AVX-512 in place of AVX2, or back; None where there is no AVX-512."""
    return _OTHER_VECTORS[kernels] if has_avx512() else None


def with_other_library(kernels: Kernels) -> Kernels:
    """The other library with the same vectors."""
    return _OTHER_LIBRARY[kernels]


def environment_of(kernels: Kernels, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to compute with these kernels."""
    rest = {k: v for k, v in base.items() if k not in (LIBRARY_VARIABLE, VECTORS_VARIABLE)}
    return rest | dict(ENVIRONMENTS[kernels])


class KernelChoice:
    """The choice of one process, made before its first model is opened.

    Args:
        environment: The process's own.
        imported: Whether CTranslate2 has been imported, so that its library is settled.
    """

    def __init__(self, environment: MutableMapping[str, str], imported: Callable[[], bool]) -> None:
        self._environment = environment
        self._imported = imported
        self._lock = Lock()
        self._settled = False
        self._forced = False
        self._kernels: Kernels | None = None

    def settle(self, measured: Kernels | None = None) -> Kernels | None:
        """Choose, if that has not been done, and say what CTranslate2 computes with.

        Args:
            measured: What was measured to be fastest for a model about to be opened; None where
                nothing was. The user's environment goes before it, and so does an earlier choice.

        Returns:
            None where the user has chosen, or there is nothing to choose from.
        """
        with self._lock:
            if not self._settled:
                self._choose(measured)
            elif measured not in (None, self._kernels) and not self._forced:
                logger.info(
                    "ctranslate2's kernels are %s in this process already; %s were measured to be "
                    "faster for the model that is opened now",
                    *(self._kernels, measured),
                )
            return self._kernels

    def _choose(self, measured: Kernels | None) -> None:
        self._settled = True
        if not any(self._environment.get(name) for name in (SPIN_VARIABLE, WAIT_POLICY_VARIABLE)):
            self._environment[SPIN_VARIABLE] = SPIN_COUNT
        given = {name: self._environment.get(name) for name in (LIBRARY_VARIABLE, VECTORS_VARIABLE)}
        said = [f"{name}={value}" for name, value in given.items() if value]
        if said:  # CTranslate2 takes an empty variable for one that is not set
            self._forced = True
            logger.info("ctranslate2's kernels are as the environment says: %s", ", ".join(said))
            return
        own = own_choice()
        self._kernels = own
        if measured is None or measured == own:
            return
        if self._imported() and measured != with_other_vectors(own or measured):
            logger.info("ctranslate2 was imported before its kernels could be chosen")
        else:
            self._kernels = measured
            self._environment.update(ENVIRONMENTS[measured])
            logger.info(
                "ctranslate2's kernels are %s, measured to be faster on this processor than its "
                "own choice (%s)",
                *(measured, own),
            )


_process = KernelChoice(os.environ, lambda: "ctranslate2" in sys.modules)


def settle_kernels(measured: Kernels | None = None) -> Kernels | None:
    """Settle the kernels of this process, by `KernelChoice.settle`."""
    return _process.settle(measured)
