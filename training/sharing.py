"""Features of several models that have their lower layers in common: those are computed once.

With bfloat16 products where the processor has them; a test holds the features within 0.002 of
float32's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from tamis.engine.heads.capitals import lower_capitals
from training.base import Floats
from training.folder import (
    IMPORTANCE,
    PROJECTION,
    read_importance,
    read_projection,
    read_scores,
    read_tokenizer,
)
from training.layers import IS_FAST_IN_BFLOAT16, embed, fast_products, padded_batches, padded_ids
from training.matching import (
    DOCUMENT_PREFIX,
    MAX_LENGTH_TOKENS,
    N_FEATURES,
    QUERY_PREFIX,
    SideStates,
    id_sequences,
    match,
    side_states,
    token_weights,
)
from training.measurement import Candidates, features_path
from training.saving import save_array
from training.states import Encoder, read_encoder

BATCH_TOKENS = 8192
KIND = "bfloat16" if IS_FAST_IN_BFLOAT16 else "float32"


class Family:
    """Models whose embeddings and first layers are the same, by torch.

    Raises:
        ValueError: they are not the same.
    """

    def __init__(self, folders: list[Path], n_shared: int) -> None:
        self._folders = folders
        self._encoders = [read_encoder(folder, n_shared) for folder in folders]
        self._importances = [read_importance(folder) for folder in folders]
        self._projections = [read_projection(folder) for folder in folders]
        self._tokenizer = read_tokenizer(folders[0])
        self._weights = token_weights(read_scores(folders[0]))
        for encoder in self._encoders[1:]:
            _require_same(self._encoders[0], encoder)

    def fill_cache(self, candidates: Candidates, work: Path) -> None:
        """Computes each model's features of all pairs, where `cached_features` has none yet."""
        paths = [features_path(f, KIND, candidates, work) for f in self._folders]
        if all(path.exists() for path in paths):
            return
        for path, features in zip(paths, self._features(candidates), strict=True):
            save_array(path, features)

    def _features(self, candidates: Candidates) -> list[Floats]:
        texts, pairs = candidates.evaluation, candidates.pairs()
        queries = self._sides([texts.queries[q] for q in candidates.run], is_query=True)
        place = {query: number for number, query in enumerate(candidates.run)}
        of_document: dict[str, list[int]] = {}
        for number, (_, document) in enumerate(pairs):
            of_document.setdefault(document, []).append(number)
        used = list(of_document)
        found = [np.zeros((len(pairs), N_FEATURES), dtype=np.float32) for _ in self._folders]
        sequences, n_prefix = self._sequences([texts.documents[d] for d in used], is_query=False)
        for number, states in self._stream(sequences, texts.name):
            rows = of_document[used[number]]
            asked = [place[pairs[row][0]] for row in rows]
            for model, own in enumerate(states):
                projection = self._projections[model]
                document = side_states(own, sequences[number], n_prefix, projection)
                sides = [queries[query][model] for query in asked]
                found[model][rows] = match(sides, document, self._weights, self._importances[model])
        return found

    def _sides(self, texts: list[str], *, is_query: bool) -> list[list[SideStates]]:
        """What each model makes of each text."""
        sequences, n_prefix = self._sequences(texts, is_query=is_query)
        sides: list[list[SideStates]] = [[] for _ in texts]
        for number, states in self._stream(sequences, "queries"):
            sides[number] = [
                side_states(own, sequences[number], n_prefix, projection)
                for own, projection in zip(states, self._projections, strict=True)
            ]
        return sides

    def _sequences(self, texts: list[str], *, is_query: bool) -> tuple[list[list[int]], int]:
        read = list(map(lower_capitals, texts))
        if is_query:
            return id_sequences(self._tokenizer, read, QUERY_PREFIX, MAX_LENGTH_TOKENS // 2)
        return id_sequences(self._tokenizer, read, DOCUMENT_PREFIX, MAX_LENGTH_TOKENS)

    @torch.no_grad()
    def _stream(self, sequences: list[list[int]], label: str) -> Iterator[tuple[int, list[Floats]]]:
        """Each sequence's number and its states (n_tokens, hidden) by each model."""
        lengths = [len(sequence) for sequence in sequences]
        with tqdm(
            total=sum(lengths), unit="tok", unit_scale=True, desc=label, mininterval=5
        ) as bar:
            for batch in padded_batches(lengths, BATCH_TOKENS):
                tops = self._batch([sequences[i] for i in batch])
                for row, i in enumerate(batch):
                    yield i, [top[row, : lengths[i]] for top in tops]
                bar.update(sum(lengths[i] for i in batch))

    def _batch(self, sequences: list[list[int]]) -> list[Floats]:
        """States of one batch by each model, (n, longest, hidden) each."""
        ids, mask = padded_ids(sequences)
        shared = self._encoders[0]
        tops: list[Floats] = []
        with fast_products():
            states = embed(ids, shared.tensors)
            for layer in shared.layers[: shared.first]:
                states = layer(states, mask)
            for encoder in self._encoders:
                top = states
                for layer in encoder.layers[encoder.first :]:
                    top = layer(top, mask)
                tops.append(top.float().numpy())
        return tops


def _require_same(one: Encoder, other: Encoder) -> None:
    for name, tensor in one.tensors.items():
        if name in (IMPORTANCE, PROJECTION):
            continue
        number = name.removeprefix("encoder.layer.").partition(".")[0]
        is_shared = not number.isdigit() or int(number) < one.first
        if is_shared and not np.allclose(tensor, other.tensors[name], rtol=1e-6, atol=1e-9):
            raise ValueError(f"{name} differs: lower layers that differ cannot be computed once")
