"""The Python face: rerank in this process, without a server."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from tamis.cascade import Cascade, StagedLogits, merge, one_stage
from tamis.engine.explanation import explain_pair
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.pairs import EncodedPair
from tamis.errors import InvalidFieldError, SettingsError
from tamis.ranking import rank
from tamis.scheduler.execution import BatchReport
from tamis.scheduler.scheduler import score_now
from tamis.settings import (
    DEFAULT_MODEL,
    DeviceName,
    DtypeName,
    RuntimeName,
    first_stage_settings,
    model_settings,
)
from tamis.types import Document, RankedDocument, RerankRequest


class Reranker:
    """Scores documents for a query.

    One thread at a time may call it; for many callers there is the server.

    Args:
        model: `tamis-mini` (carried along), a hub name, a folder in Hugging Face layout, or what
            `load_model` has loaded (the other options of the model then count for nothing).
        device: `auto` takes CUDA where there is one.
        dtype: `auto` is float16 on CUDA and what the model names on a CPU.
        runtime: `auto` takes ctranslate2.
        max_length: Tokens a pair may have, 512 unless the model reads less; longer documents
            are cut.
        revision: Branch, tag or commit of a hub name.
        offline: Look at local files only.
        threads: CPU threads; 0 takes the cores this process may use.
        max_batch_tokens: Tokens in one forward pass, at most; None for what was measured
            on this processor when the model was converted.
        on_batch: Called after each forward pass, in the calling thread.
        cascade: How many of the best `model` reads, as `first_stage` orders them; None for all.
        first_stage: The cheap model of a cascade, a name, a folder or what `load_model` loaded.

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
        self._max_batch_tokens = max_batch_tokens or model.max_batch_tokens
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
        """Put documents in order for a query, best first; ties keep the order given.

        Args:
            query: The question.
            documents: Strings, or mappings with a `text`; they come back as they were given.
            top_n: At most so many; None for all.
            threshold: Lowest score (0..1) that comes back; None for no bound.
            explain: Say which words matched, where the model can tell (late interaction).

        Raises:
            MissingFieldError: the query is empty.
            InvalidFieldError: a document has no text, or an option is out of its range.
            InvalidTextError: a text is not valid Unicode.
        """
        if isinstance(documents, str | Mapping):
            raise InvalidFieldError("`documents` is one document; give a list of them")
        documents = tuple(documents)
        request = RerankRequest(query, documents, top_n=top_n, threshold=threshold)
        texts = request.texts()
        staged, pairs, models = self._score_in_stages(query, texts)
        return [
            RankedDocument(
                index=place.index,
                document=documents[place.index],
                logit=place.logit,
                score=place.score,
                explanation=explain_pair(
                    models[place.index], query, texts[place.index], pairs[place.index]
                )
                if explain
                else None,
                scored_by=models[place.index].name if self._cascade else None,
                truncated=pairs[place.index].truncated,
                query_truncated=pairs[place.index].query_truncated,
            )
            for place in rank(staged.logits, top_n=top_n, threshold=threshold, order=staged.order)
        ]

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Logits (n_pairs,) of (query, document) pairs, in their order.

        Raises:
            MissingFieldError: a query is empty.
            InvalidFieldError: a pair is not two texts.
            InvalidTextError: a text is not valid Unicode.
        """
        encoded: list[EncodedPair] = []
        for number, pair in enumerate(pairs):
            if isinstance(pair, str) or len(pair) != 2:
                raise InvalidFieldError(f"pair {number} must be a query and a document")
            request = RerankRequest(pair[0], (pair[1],))
            encoded += self._model.tokenizer.encode(request.query, request.texts())
        return self._score(encoded)

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

    def _score(self, pairs: Sequence[EncodedPair]) -> NDArray[np.float32]:
        return self._score_with(self._model, pairs)

    def _score_with(self, model: LoadedModel, pairs: Sequence[EncodedPair]) -> NDArray[np.float32]:
        budget = self._max_batch_tokens if model is self._model else model.max_batch_tokens
        return score_now(model.backend, pairs, max_batch_tokens=budget, on_batch=self._on_batch)

    def _score_in_stages(
        self, query: str, texts: list[str]
    ) -> tuple[StagedLogits, list[EncodedPair], list[LoadedModel]]:
        """Logits and, for each document, the pair and the model that gave its own."""
        pairs = self._model.tokenizer.encode(query, texts)
        cascade, first_stage = self._cascade, self._first_stage
        if cascade is None or first_stage is None or len(texts) <= cascade.keep:
            return one_stage(self._score(pairs)), pairs, [self._model] * len(texts)
        first_pairs = first_stage.tokenizer.encode(query, texts)
        first = self._score_with(first_stage, first_pairs)
        kept = cascade.select(first)
        staged = merge(first, kept, self._score([pairs[index] for index in kept]))
        models = [self._model if second else first_stage for second in staged.is_second]
        own = [pairs[i] if staged.is_second[i] else first_pairs[i] for i in range(len(texts))]
        return staged, own, models
