"""A model's settings -> tokenizer and backend, warmed up."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from tamis.engine.backend import LocalBackend
from tamis.engine.checkpoint import (
    CONFIG_FILE,
    TAMIS_FILE,
    TOKENIZER_FILE,
    Checkpoint,
    read_checkpoint,
)
from tamis.engine.ctranslate2 import opening as ctranslate2
from tamis.engine.facts import ModelFacts
from tamis.engine.files import read_bounded
from tamis.engine.golden import compare_with_golden, golden_key
from tamis.engine.heads.reading import read_head
from tamis.engine.library import OpenModel, Texts
from tamis.engine.location import locate
from tamis.engine.manifest import verify_manifest
from tamis.engine.memory import release_unused
from tamis.engine.pairs import Logits
from tamis.engine.tokenization import (
    PairTokenizer,
    open_text_tokenizer,
    read_definition,
    read_text_tokenizer,
)
from tamis.engine.torch import opening as torch
from tamis.engine.weights import read_weights
from tamis.errors import InferenceError, ModelError, SettingsError, UnsupportedModelError
from tamis.settings import ModelSettings

logger = logging.getLogger(__name__)

LIBRARIES: Mapping[str, OpenModel] = {
    "ctranslate2": ctranslate2.open_model,
    "torch": torch.open_model,
}
"""By their names in `model.runtime`; what they need is imported when one is asked for."""

WARM_UP_QUERY = "What is a tamis?"
WARM_UP_DOCUMENTS = ("A tamis is a fine sieve.", "鼓筛是一种细筛。", "sieve " * 50)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to score.

    Attributes:
        seconds_per_token: What the warm-up took: the slowest that it is likely to be.
    """

    facts: ModelFacts
    tokenizer: PairTokenizer
    backend: LocalBackend
    seconds_per_token: float = 0.0


def find_model(settings: ModelSettings) -> Path:
    """The folder of a model, fetched where that is needed.

    Raises:
        ModelNotFoundError: it is neither a folder nor a repository.
        HubUnreachableError: it is not here, and the hub cannot or may not be asked.
    """
    return locate(settings.name, revision=settings.revision, offline=settings.offline)


def load_model(settings: ModelSettings, folder: Path | None = None) -> LoadedModel:
    """Find, verify, convert where needed, load and warm up a model.

    Args:
        settings: Which model, where and how.
        folder: Its files, where `find_model` has been asked already.

    Raises:
        ModelError: it is not there, not safe, not whole, not what tamis runs, or does not score
            as it did.
        HubUnreachableError: it is not here, and the hub does not answer.
        SettingsError: an option asks for what this model does not have.
    """
    found = folder or find_model(settings)
    try:
        return _load(settings, found)
    except MemoryError as error:
        raise ModelError(
            f"{found} needs more memory than is available; free some, or use a smaller model"
        ) from error


def _load(settings: ModelSettings, folder: Path) -> LoadedModel:
    name = _asked_name(settings)
    checkpoint = read_checkpoint(folder, name=name)
    read_head(checkpoint)
    if checkpoint.converted_dtype is None:
        read_weights(checkpoint)  # headers alone: before all of it is hashed
    max_length = _max_length(settings, checkpoint)
    library = "ctranslate2" if settings.runtime == "auto" else settings.runtime
    opened = LIBRARIES[library](settings, checkpoint, lambda own: _read_texts(own, max_length))
    tokenizer, head = opened.texts
    facts = ModelFacts(
        name=name or checkpoint.name,
        runtime=library,
        device=opened.runtime.device,
        dtype=opened.runtime.dtype,
        max_length=max_length,
        max_batch_tokens=opened.runtime.max_batch_tokens,
        digest=opened.digest,
    )
    model = LoadedModel(facts, tokenizer, LocalBackend(opened.runtime, head))
    release_unused()  # now, so that the first request finds what the warm-up has used
    started = time.monotonic()
    logits = warm_up(model)
    seconds = time.monotonic() - started
    compare_with_golden(
        logits,
        key=golden_key(
            (WARM_UP_QUERY, *WARM_UP_DOCUMENTS),
            dtype=facts.dtype,
            device=facts.device,
            max_length=max_length,
        ),
        dtype=facts.dtype,
        carried=checkpoint.folder,
        kept=opened.kept,
    )
    logger.info(
        "model %s is ready: %s on %s in %s, at most %d tokens a pair",
        *(facts.name, facts.runtime, facts.device, facts.dtype, facts.max_length),
    )
    return replace(model, seconds_per_token=seconds / _n_warm_up_tokens(model))


def load_tokenizer(settings: ModelSettings, folder: Path) -> PairTokenizer:
    """A model's tokenizer alone, for a process that has the model's work done by others.

    Args:
        settings: Of the model.
        folder: Its files; what is read here is compared with its manifest here, since workers may
            have read a converted form of them alone.

    Raises:
        ModelError: it is not what tamis runs, or not what its manifest says.
        SettingsError: `max_length` is more than the model reads.
    """
    verify_manifest(folder, only=(CONFIG_FILE, TAMIS_FILE, TOKENIZER_FILE))
    checkpoint = read_checkpoint(folder, name=_asked_name(settings))
    tokenizer, _ = _read_texts(checkpoint, _max_length(settings, checkpoint))
    release_unused()
    return tokenizer


def warm_up(model: LoadedModel) -> Logits:
    """Score a few texts, short and long, so that the first request finds everything in place.

    Returns:
        Their logits, (n_documents,).

    Raises:
        InferenceError: the logits are not finite.
    """
    pairs = model.tokenizer.encode(WARM_UP_QUERY, WARM_UP_DOCUMENTS)
    logits = model.backend.forward(pairs)
    if not np.isfinite(logits).all():
        facts = model.facts
        raise InferenceError(f"{facts.name} gives logits that are not finite on {facts.device}")
    return logits


def _n_warm_up_tokens(model: LoadedModel) -> int:
    pairs = model.tokenizer.encode(WARM_UP_QUERY, WARM_UP_DOCUMENTS)
    return sum(pair.n_tokens for pair in pairs)


def _asked_name(settings: ModelSettings) -> str | None:
    """What the model is called; None where a folder was named, which says it itself."""
    return None if Path(settings.name).is_dir() else settings.name


def _max_length(settings: ModelSettings, checkpoint: Checkpoint) -> int:
    if settings.max_length <= checkpoint.max_length:
        return settings.max_length
    if "max_length" in settings.model_fields_set:
        raise SettingsError(
            f"model.max_length is {settings.max_length}, and {checkpoint.name} reads at most "
            f"{checkpoint.max_length} tokens"
        )
    return checkpoint.max_length


def _read_texts(checkpoint: Checkpoint, max_length: int) -> Texts:
    text = _read_text_tokenizer(checkpoint)
    if text.get_vocab_size() > checkpoint.n_pieces:
        raise UnsupportedModelError(
            f"{TOKENIZER_FILE} has {text.get_vocab_size():,} pieces, and the model's word "
            f"embedding {checkpoint.n_pieces:,}; they do not belong together"
        )
    return read_head(checkpoint).open(checkpoint, text, max_length=max_length)


def _read_text_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """A converted model holds it as it is wanted; of a source's, the special tokens are taken."""
    if checkpoint.converted_dtype is None:
        return read_text_tokenizer(read_definition(checkpoint.folder))
    return open_text_tokenizer(read_bounded(checkpoint.folder / TOKENIZER_FILE))
