"""A model's settings -> tokenizer and backend, warmed up."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

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
from tamis.engine.ctranslate2.converted import converted
from tamis.engine.facts import ModelFacts
from tamis.engine.files import read_bounded
from tamis.engine.golden import compare_with_golden, golden_key
from tamis.engine.heads.base import Head
from tamis.engine.heads.registry import read_head
from tamis.engine.location import locate
from tamis.engine.manifest import folder_digest, verified_digests, verify_manifest
from tamis.engine.memory import release_unused
from tamis.engine.pairs import Logits
from tamis.engine.runtimes.opening import (
    RuntimePlan,
    open_ctranslate2,
    open_torch,
    plan_runtime,
)
from tamis.engine.tokenization import (
    PairTokenizer,
    open_text_tokenizer,
    read_definition,
    read_text_tokenizer,
)
from tamis.engine.weights import read_weights
from tamis.errors import InferenceError, ModelError, SettingsError, UnsupportedModelError
from tamis.settings import ModelSettings

if TYPE_CHECKING:  # it is imported late: CTranslate2 reads its environment then
    from tamis.engine.ctranslate2.runtime import CTranslate2Runtime

logger = logging.getLogger(__name__)

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
            f"{found} takes more memory than there is; free some, or take a smaller model"
        ) from error


def _load(settings: ModelSettings, folder: Path) -> LoadedModel:
    name = _asked_name(settings)
    checkpoint = read_checkpoint(folder, name=name)
    read_head(checkpoint)
    if checkpoint.converted_dtype is None:
        read_weights(checkpoint)  # headers alone: before all of it is hashed
    max_length = _max_length(settings, checkpoint)
    plan = plan_runtime(settings, checkpoint)
    opened = (
        _load_source(checkpoint, plan, max_length)
        if plan.library == "torch"
        else _load_converted(checkpoint, plan, max_length, settings.cache_dir)
    )
    facts = ModelFacts(
        name=name or checkpoint.name,
        runtime=plan.library,
        device=opened.backend.runtime.device,
        dtype=opened.backend.runtime.dtype,
        max_length=max_length,
        max_batch_tokens=opened.backend.runtime.max_batch_tokens,
        digest=opened.digest,
    )
    model = LoadedModel(facts, opened.tokenizer, opened.backend)
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
    tokenizer, _ = _read_tokenizer_and_head(checkpoint, _max_length(settings, checkpoint))
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


@dataclass(frozen=True, slots=True)
class _Opened:
    """A model's parts.

    Attributes:
        digest: Of the files that they were read from.
        kept: Where its converted form stands; None where it has none that stays.
    """

    backend: LocalBackend
    tokenizer: PairTokenizer
    digest: str
    kept: Path | None = None


def _load_source(checkpoint: Checkpoint, plan: RuntimePlan, max_length: int) -> _Opened:
    verify_manifest(checkpoint.folder, known=checkpoint.content)
    tokenizer, head = _read_tokenizer_and_head(checkpoint, max_length)
    release_unused()  # the vocabulary as Python objects, before the weights need the room
    runtime = open_torch(checkpoint, plan, reads_tokens=head.reads_tokens)
    return _Opened(LocalBackend(runtime, head), tokenizer, folder_digest(checkpoint.content))


def _load_converted(
    source: Checkpoint, plan: RuntimePlan, max_length: int, cache_dir: Path
) -> _Opened:
    """Tokenizer and weights are read side by side: each takes one core."""
    reads_tokens = read_head(source).reads_tokens
    with (
        converted(source, dtype=plan.dtype, cache_dir=cache_dir) as model,
        ThreadPoolExecutor(1) as beside,
    ):
        opening = beside.submit(open_ctranslate2, model.folder, plan, reads_tokens=reads_tokens)
        try:
            checkpoint = read_checkpoint(model.folder)
            tokenizer, head = _read_tokenizer_and_head(checkpoint, max_length)
        except BaseException:
            opening.add_done_callback(_close_opened)
            raise
        runtime = opening.result()
        digest = folder_digest(verified_digests(model.folder))
    kept = model.folder if model.is_kept else None
    return _Opened(LocalBackend(runtime, head), tokenizer, digest, kept)


def _close_opened(opening: "Future[CTranslate2Runtime]") -> None:
    if opening.exception() is None:
        opening.result().close()


def _read_tokenizer_and_head(checkpoint: Checkpoint, max_length: int) -> tuple[PairTokenizer, Head]:
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
