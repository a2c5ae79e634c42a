"""The model that is trained: upper encoder layers and the late-interaction head.

MaxSim as in ColBERT (arXiv:2004.12832); a query token weighs as much as its piece is rare, times a
learned factor of its state: `exp(importance . state)`, which begins as 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from training.model.base import Floats
from training.model.folder import IMPORTANCE
from training.model.layers import (
    Layer,
    fast_products,
    filled,
    layer_tensors,
    padded_batches,
    read_layer,
)

BATCH_TOKENS = 6144
IMPORTANCE_SCALE = 10.0  # states have length 1: so that a usual learning rate moves them


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One encoded text.

    Attributes:
        tokens: Last-layer states of the text's own tokens, of length 1, (n_text_tokens, hidden).
        pooled: The mean of all tokens' states, of length 1, (hidden,).
    """

    tokens: Tensor
    pooled: Tensor


class Student(nn.Module):
    """Encoder layers from `first` on, and the head; layers below it are not here.

    Args:
        tensors: A model folder's tensors.
        n_heads: Attention heads of a layer.
        first: The number of the first layer that is trained.
        pooled_weight: Weight of the pooled cosine compared with MaxSim.
        skips: Tokens before the text of a query and of a document.
    """

    def __init__(
        self,
        tensors: Mapping[str, Floats],
        *,
        n_heads: int,
        n_layers: int,
        first: int,
        pooled_weight: float,
        scale: float,
        offset: float,
        skips: tuple[int, int],
    ) -> None:
        super().__init__()
        names = [f"encoder.layer.{number}." for number in range(n_layers)]
        hidden = tensors["embeddings.word_embeddings.weight"].shape[1]
        self.first = first
        self.pooled_weight = pooled_weight
        self.skips = skips
        self.layers = nn.ModuleList(read_layer(tensors, name, n_heads) for name in names[first:])
        self.importance = nn.Parameter(torch.zeros(hidden))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.offset = nn.Parameter(torch.tensor(offset))

    def tensors(self) -> dict[str, Floats]:
        """What has been trained, under the names of a model folder."""
        found: dict[str, Floats] = {}
        for number, layer in enumerate(self.layers, self.first):
            found |= layer_tensors(_as_layer(layer), f"encoder.layer.{number}.")
        found[IMPORTANCE] = IMPORTANCE_SCALE * self.importance.detach().numpy()
        return found

    def encode(self, lower: list[Tensor], *, is_query: bool) -> list[Side]:
        """Texts from their states below the trained layers."""
        skip = self.skips[0] if is_query else self.skips[1]
        lengths = [len(states) for states in lower]
        sides: dict[int, Side] = {}
        for batch in padded_batches(lengths, BATCH_TOKENS):
            states, here = _padded([lower[i] for i in batch])
            mask = None if bool(here.all()) else here[:, None, None]
            with fast_products():
                for layer in self.layers:
                    states = layer(states, mask)
            for row, i in zip(states.float(), batch, strict=True):
                own = row[: lengths[i]]
                tokens = normalize(own[skip:-1], dim=-1)
                sides[i] = Side(tokens, normalize(own.mean(0), dim=0))
        return [sides[i] for i in range(len(lower))]

    def blend(self, maxsim: Tensor, cosine: Tensor) -> Tensor:
        """MaxSim and the pooled cosine as one number."""
        return (maxsim + self.pooled_weight * cosine) / (1 + self.pooled_weight)

    def logits(self, blend: Tensor) -> Tensor:
        """`scale * (blend - offset)`."""
        return self.log_scale.exp() * (blend - self.offset)

    def match(
        self, queries: list[Side], information: list[Tensor], documents: list[Side]
    ) -> tuple[Tensor, Tensor]:
        """MaxSim and pooled cosine of every query with every document.

        Args:
            queries: n_queries encoded queries.
            information: How rare each of their tokens is, (n_text_tokens,) each.
            documents: n_documents encoded documents.

        Returns:
            Two of (n_queries, n_documents).
        """
        tokens = torch.cat([side.tokens for side in queries])
        of_query = torch.repeat_interleave(
            torch.arange(len(queries)), torch.tensor([len(side.tokens) for side in queries])
        )
        weights = torch.cat(information) * (IMPORTANCE_SCALE * tokens @ self.importance).exp()
        totals = torch.zeros(len(queries)).index_add(0, of_query, weights)
        weights = (weights / totals[of_query])[:, None]
        columns: list[Tensor] = []
        places: list[int] = []
        for batch in padded_batches([len(side.tokens) for side in documents], BATCH_TOKENS):
            states, here = _padded([documents[i].tokens for i in batch])
            similar = torch.einsum("qh,bth->qbt", tokens, states)
            best = similar.masked_fill(~here[None], -1.0).amax(2) * weights
            columns.append(torch.zeros(len(queries), len(batch)).index_add(0, of_query, best))
            places += batch
        maxsim = torch.cat(columns, 1)[:, torch.tensor(places).argsort()]
        pooled = [torch.stack([side.pooled for side in sides]) for sides in (queries, documents)]
        return maxsim, pooled[0] @ pooled[1].T


def _padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(n, longest, width) with zeros behind each row, and where a row is filled (n, longest)."""
    lengths = [len(row) for row in rows]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), filled(lengths, max(lengths))


def _as_layer(module: nn.Module) -> Layer:
    assert isinstance(module, Layer)
    return module
