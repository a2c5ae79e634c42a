"""MKL or oneDNN: with which of them CTranslate2 multiplies matrices in this process.

CTranslate2 reads CT2_USE_MKL once, at its first use in a process, and goes by the processor's
vendor where it is not set: MKL on Intel's, oneDNN on all others (its src/cpu/backend.cc). So a
process has one library for good, whichever models it opens later.
"""

import logging
import os
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Literal

import ctranslate2

from tamis.engine.device import processor_vendor

logger = logging.getLogger(__name__)

Library = Literal["mkl", "onednn"]
VARIABLE = "CT2_USE_MKL"
LIBRARY_NAMES: Mapping[Library, str] = {"mkl": "MKL", "onednn": "oneDNN"}
VARIABLE_VALUES: Mapping[Library, str] = {"mkl": "1", "onednn": "0"}
OTHER: Mapping[Library, Library] = {"mkl": "onednn", "onednn": "mkl"}
_TRUE = ("1", "true", "TRUE")  # what CTranslate2 takes for a yes


def own_choice() -> Library | None:
    """What CTranslate2 takes by itself; None where its builds have no choice (ARM, macOS)."""
    vendor = processor_vendor()
    if vendor is None:
        return None
    return "mkl" if vendor == "GenuineIntel" else "onednn"


def users_choice() -> Library | None:
    """What the user's environment forces; None where it leaves the choice open."""
    asked = os.environ.get(VARIABLE)
    if not asked:  # CTranslate2 takes an empty variable for one that is not set
        return None
    return "mkl" if asked in _TRUE else "onednn"


class LibraryChoice:
    """The choice of one process, made at the first `settle`.

    Args:
        first_use: Makes CTranslate2 read its environment; it raises ValueError or RuntimeError
            where it lacks the library that the environment names.
    """

    def __init__(self, first_use: Callable[[], object]) -> None:
        self._first_use = first_use
        self._lock = Lock()
        self._settled = False
        self._library: Library | None = None

    def settle(self, measured: Library | None = None) -> Library | None:
        """Make CTranslate2 choose, if it has not yet, and say what it multiplies with.

        Args:
            measured: What was measured to be fastest for a model about to be opened; None where
                nothing was. The user's environment goes before it, and so does an earlier choice.
        """
        with self._lock:
            if self._settled:
                held = "in this process already, for another model"
            else:
                held = f"as {VARIABLE} says"
                self._library = self._choose(measured)
                self._settled = True
            if measured is not None and self._library not in (None, measured):
                logger.info(
                    "CTranslate2 multiplies with %s %s; %s was measured to be faster",
                    *(LIBRARY_NAMES[self._library], held, LIBRARY_NAMES[measured]),
                )
            return self._library

    def _choose(self, measured: Library | None) -> Library | None:
        forced, own = users_choice(), own_choice()
        if forced is None and measured is not None and measured != own:
            try:
                self._first_use_with(measured)
            except (ValueError, RuntimeError) as error:
                logger.warning("CTranslate2 keeps its own choice of library: %s", error)
            else:
                logger.info(
                    "CTranslate2 multiplies with %s, measured to be faster on this processor "
                    "than what it takes by itself",
                    LIBRARY_NAMES[measured],
                )
                return measured
        self._first_use()
        return forced or own

    def _first_use_with(self, library: Library) -> None:
        os.environ[VARIABLE] = VARIABLE_VALUES[library]
        try:
            self._first_use()
        finally:  # it has been read: processes that this one starts choose for themselves
            del os.environ[VARIABLE]


_process = LibraryChoice(lambda: ctranslate2.get_supported_compute_types("cpu"))


def settle_library(measured: Library | None = None) -> Library | None:
    """See `LibraryChoice.settle`, for this process."""
    return _process.settle(measured)
