"""What an inference library does for the engine: open a model of any checkpoint it runs."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tamis.engine import device
from tamis.engine.checkpoint import Checkpoint
from tamis.engine.heads.head import Head
from tamis.engine.runtime import Runtime
from tamis.engine.tokenization import PairTokenizer
from tamis.settings import ModelSettings

logger = logging.getLogger(__name__)

Texts = tuple[PairTokenizer, Head]
ReadTexts = Callable[[Checkpoint], Texts]
"""Reads tokenizer and head of a checkpoint: the source, or the form that the library runs."""


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model's parts.

    Attributes:
        runtime: The encoder.
        texts: Its tokenizer and its head.
        digest: Of the files that they were read from.
        kept: Where its converted form stands; None where it has none that stays.
    """

    runtime: Runtime
    texts: Texts
    digest: str
    kept: Path | None = None


class OpenModel(Protocol):
    """A library: a folder of `engine/` whose `opening.py` has a function of this kind."""

    def __call__(
        self, settings: ModelSettings, checkpoint: Checkpoint, read_texts: ReadTexts
    ) -> OpenedModel:
        """Verify a checkpoint's files, convert them where needed, and load them.

        Raises:
            RuntimeUnavailableError: the library, device or dtype is not to be had here.
            ModelError: the files are corrupt, or cannot be converted.
        """
        ...


def settle_dtype(asked: str, *, where: str, cpu_dtype: str, computed: frozenset[str]) -> str:
    """What to compute in (see `device.resolve_dtype`); the log says what is not as asked."""
    dtype, note = device.resolve_dtype(asked, device=where, cpu_dtype=cpu_dtype, computed=computed)
    if note:
        logger.warning("%s", note)
    return dtype
