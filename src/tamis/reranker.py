"""The Python face: rerank in this process, without a server."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from tamis.cascade import Cascade, merge
from tamis.engine.explanation import explain_pair
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.pairs import EncodedPair, first_places
from tamis.errors import InvalidFieldError, SettingsError
from tamis.ranking import BLANK_LOGIT, best_first, has_words, rank
from tamis.scheduler.observer import BatchReport
from tamis.scheduler.scheduler import score_now
from tamis.settings import (
    DEFAULT_MODEL,
    DeviceName,
    DtypeName,
    RuntimeName,
    first_stage_settings,
    model_settings,
)
from tamis.types import (
    Document,
    RankedDocument,
    RerankRequest,
    document_list,
    document_text,
    kind_of,
)


@dataclass(frozen=True, slots=True)
class _ScoredPair:
    """A pair, and the model that gave it its logit."""

    pair: EncodedPair
    model: LoadedModel


class Reranker:
    """Scores documents for a query.

    One thread at a time may call it; for many callers there is the server.

    Args:
        model: `tamis-mini` (included), a Hub name, a folder in Hugging Face layout, or what
            `load_model` has loaded (the other options of the model then count for nothing).
        device: `auto` takes CUDA where there is one.
        dtype: `auto` is float16 on CUDA and what the model names on a CPU.
        runtime: `auto` takes ctranslate2.
        max_length: Tokens a pair may have, 512 unless the model reads less; longer documents
            are cut.
        revision: Branch, tag or commit of a Hub model.
        offline: Look at local files only.
        threads: CPU threads; 0 takes the cores this process may use.
        max_batch_tokens: Tokens in one forward pass, at most; None for what was measured
            on this processor when the model was converted.
        on_batch: Called after each forward pass, in the calling thread.
        cascade: How many of the best `model` reads, as `first_stage` orders them; None for all.
        first_stage: A cascade's first-stage model: a name, a folder or a loaded model.

    Raises:
        ModelError: the model is not there, not safe, not whole, or not what tamis runs.
        HubUnreachableError: the model is not here, and the hub does not answer.
        SettingsError: an option has a value it cannot have, or not with this model.
    """

    def __init__(
        self,
        model: str | Path | LoadedModel = DEFAULT_MODEL,
        *,
        device: DeviceName = "auto",
        dtype: DtypeName = "auto",
        runtime: RuntimeName = "auto",
        max_length: int | None = None,
        revision: str | None = None,
        offline: bool = False,
        threads: int = 0,
        max_batch_tokens: int | None = None,
        on_batch: Callable[[BatchReport], None] | None = None,
        cascade: Cascade | None = None,
        first_stage: str | Path | LoadedModel = DEFAULT_MODEL,
    ) -> None:
        given = cast("object", model)  # callers may have no types
        if not isinstance(given, str | Path | LoadedModel):
            raise SettingsError(f"a model is a name or a folder, not {type(given).__name__}")
        policy = cast("object", cascade)
        if not isinstance(policy, Cascade | None):
            raise SettingsError(f"a cascade is a tamis.Cascade, not {type(policy).__name__}")
        first = cast("object", first_stage)
        if cascade is not None and not isinstance(first, str | Path | LoadedModel):
            raise SettingsError(f"first_stage is a name or a folder, not {type(first).__name__}")
        _require_options(max_batch_tokens, on_batch)
        if not isinstance(model, LoadedModel):
            options = {
                "name": str(model),
                "device": device,
                "dtype": dtype,
                "runtime": runtime,
                "max_length": max_length,
                "revision": revision,
                "offline": offline,
                "threads": threads,
            }
            settings = model_settings(options)
            model = load_model(settings)
        else:
            settings = model_settings({"offline": offline, "threads": threads, "device": device})
        if cascade is not None and not isinstance(first_stage, LoadedModel):
            first_stage = load_model(first_stage_settings(str(first_stage), settings))
        self._first_stage = first_stage if isinstance(first_stage, LoadedModel) else None
        self._cascade = cascade
        self._model = model
        self._max_batch_tokens = max_batch_tokens or model.facts.max_batch_tokens
        self._on_batch = on_batch

    @property
    def model(self) -> LoadedModel:
        """What was loaded, and where it runs."""
        return self._model

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        explain: bool = False,
    ) -> list[RankedDocument]:
        """Put documents in order for a query, best first; ties keep their given order.

        Args:
            query: The question.
            documents: Strings, or mappings with a `text`; they come back as they were given.
            top_n: Maximum number of documents; None for all.
            threshold: Lowest score (0..1) that comes back; None for no bound.
            explain: Say which words matched, where the model can tell (late interaction).

        Raises:
            MissingFieldError: the query is empty.
            InvalidFieldError: a document has no text, or an option another type or a value out of
                its range; nothing has been computed.
            InvalidTextError: a text is not valid Unicode.
        """
        documents = document_list(documents)
        request = RerankRequest(query, documents, top_n=top_n, threshold=threshold)
        texts = request.texts()
        if not isinstance(cast("object", explain), bool):
            raise InvalidFieldError(f"`explain` must be true or false, not {kind_of(explain)}")
        logits, order, scored = self._score_documents(query, texts)
        return [
            RankedDocument(
                index=index,
                document=documents[index],
                logit=float(logits[index]),
                score=score,
                explanation=explain_pair(one.model, query, texts[index], one.pair)
                if explain and one
                else None,
                scored_by=one.model.facts.name if self._cascade and one else None,
                truncated=one is not None and one.pair.truncated,
                query_truncated=one is not None and one.pair.query_truncated,
            )
            for index, score in rank(logits, top_n=top_n, threshold=threshold, order=order)
            for one in [scored.get(index)]
        ]

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Logits (n_pairs,) of (query, document) pairs, in their order.

        Equal pairs have equal ones. A `RankedDocument` has the logit as `logit`, and its sigmoid,
        0..1, as `score`.

        Raises:
            MissingFieldError: a query is empty.
            InvalidFieldError: a pair is not two texts.
            InvalidTextError: a text is not valid Unicode.
        """
        given = cast("object", pairs)
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise InvalidFieldError(f"`pairs` must be a list of pairs, not {kind_of(given)}")
        asked = [_pair(number, pair) for number, pair in enumerate(pairs)]
        places = [number for number, (_, text) in enumerate(asked) if has_words(text)]
        logits = np.full(len(asked), BLANK_LOGIT, dtype=np.float32)
        logits[places] = self._score([asked[place] for place in places])[0]
        return logits

    def close(self) -> None:
        """Give back the models' memory; the reranker is not used after it."""
        if self._first_stage is not None:
            self._first_stage.backend.close()
        self._model.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _score(
        self, asked: Sequence[tuple[str, str]], model: LoadedModel | None = None
    ) -> tuple[NDArray[np.float32], list[EncodedPair]]:
        """Logits (n_asked,) of queries and texts, and their pairs; equal ones are scored once."""
        model = model or self._model
        places = first_places(asked)
        of_query: dict[str, list[int]] = {}
        for (query, _), place in places.items():
            of_query.setdefault(query, []).append(place)
        encoded: dict[tuple[str, str], EncodedPair] = {}
        for query, own in of_query.items():
            texts = [asked[place][1] for place in own]
            pairs = model.tokenizer.encode(query, texts, indices=own)
            encoded |= {(query, text): pair for text, pair in zip(texts, pairs, strict=True)}
        budget = self._max_batch_tokens if model is self._model else model.facts.max_batch_tokens
        distinct = [encoded[one] for one in places]
        found = score_now(model.backend, distinct, max_batch_tokens=budget, on_batch=self._on_batch)
        row = {one: number for number, one in enumerate(places)}
        return found[[row[one] for one in asked]], [encoded[one] for one in asked]

    def _score_documents(
        self, query: str, texts: list[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.intp], dict[int, _ScoredPair]]:
        """Logits of all documents, their order, and who scored which: nobody a blank one."""
        is_blank = np.array([not has_words(text) for text in texts], dtype=np.bool_)
        places, blank = np.flatnonzero(~is_blank), np.flatnonzero(is_blank)
        found, order, scored = self._score_in_stages(query, [texts[place] for place in places])
        logits = np.full(len(texts), BLANK_LOGIT, dtype=np.float32)
        logits[places] = found
        by_index = dict(zip(places.tolist(), scored, strict=True))
        return logits, np.concatenate([places[order], blank]), by_index

    def _score_in_stages(
        self, query: str, texts: list[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.intp], list[_ScoredPair]]:
        """Logits, their order and, for each document, the pair and the model that gave its own."""
        asked = [(query, text) for text in texts]
        cascade, first_stage = self._cascade, self._first_stage
        if cascade is None or first_stage is None or len(texts) <= cascade.keep:
            logits, pairs = self._score(asked)
            return logits, best_first(logits), [_ScoredPair(one, self._model) for one in pairs]
        first, first_pairs = self._score(asked, first_stage)
        own = [_ScoredPair(one, first_stage) for one in first_pairs]
        kept = cascade.select(first, texts)
        second, pairs = self._score([asked[index] for index in kept])
        for index, pair in zip(kept.tolist(), pairs, strict=True):
            own[index] = _ScoredPair(pair, self._model)
        return *merge(first, kept, second), own


def _require_options(max_batch_tokens: object, on_batch: object) -> None:
    """Refuse what the settings do not look at.

    Raises:
        SettingsError: an option has a value it cannot have.
    """
    budget = 0 if max_batch_tokens is None else max_batch_tokens
    if isinstance(budget, bool) or not isinstance(budget, Integral) or budget < 0:
        raise SettingsError(f"max_batch_tokens is {budget!r:.40}; it must be a whole number")
    if on_batch is not None and not callable(on_batch):
        raise SettingsError(f"on_batch must be a function, not {kind_of(on_batch)}")


def _pair(number: int, pair: object) -> tuple[str, str]:
    """A query and a document's text.

    Raises:
        MissingFieldError: the query is empty.
        InvalidFieldError: it is something else.
    """
    if isinstance(pair, str | bytes | Mapping | AbstractSet) or not isinstance(pair, Iterable):
        raise InvalidFieldError(
            f"pair {number} must be a query and a document, not {kind_of(pair)}"
        )
    parts = tuple(cast("Iterable[Document]", pair))
    if len(parts) != 2:
        raise InvalidFieldError(
            f"pair {number} must be a query and a document, not {len(parts)} values"
        )
    request = RerankRequest(cast("str", parts[0]), parts[1:])
    return request.query, document_text(parts[1], number, name=f"the document of pair {number}")
