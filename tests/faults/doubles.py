"""Faulty backends, and the requests that meet them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tamis.engine.loading import LoadedModel
from tamis.engine.pairs import EncodedPair, Logits
from tamis.settings import ModelSettings, Settings
from tamis.testing import FakeBackend, WordTokenizer, fake_logit
from tests.integration.serving import NO_CACHE, Place, PlacedBackend, Served, model_on, serving

Change = Callable[[Sequence[EncodedPair], Logits], Logits]


class OutOfMemoryError(RuntimeError):
    """Torch's, as far as anybody can tell who does not import torch."""


class FaultyBackend(PlacedBackend):
    """A `FakeBackend` that says where it runs, and may spoil the logits it gives.

    Args:
        before_forward: As `FakeBackend`'s.
        change: Makes other logits of a batch's.
    """

    def __init__(
        self,
        before_forward: Callable[[Sequence[EncodedPair]], object] | None = None,
        *,
        change: Change | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(before_forward)
        self.runtime = place or Place()
        self._change = change

    def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
        """See `Backend.forward`."""
        logits = super().forward(pairs)
        return self._change(pairs, logits) if self._change else logits


@contextmanager
def serving_on(
    backend: FakeBackend, on_cpu: FakeBackend | None = None, **sections: Any
) -> Iterator[Served]:
    """A server on a backend, and on another when the CPU is asked for by name."""

    def load(settings: ModelSettings) -> LoadedModel:
        return model_on(on_cpu if on_cpu and settings.device == "cpu" else backend)

    with serving(Settings.model_validate(NO_CACHE | sections), load=load) as server:
        yield server


def wanting_memory(n_tokens: int) -> Callable[[Sequence[EncodedPair]], None]:
    """Fails every batch of more tokens than this, as torch does on a GPU."""

    def check(pairs: Sequence[EncodedPair]) -> None:
        if sum(pair.n_tokens for pair in pairs) > n_tokens:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return check


def alone(query: str, documents: Sequence[str]) -> list[float]:
    """The logits of documents that nobody else's have disturbed."""
    pairs = WordTokenizer().encode(query, documents)
    return np.array([fake_logit(pair) for pair in pairs], dtype=np.float32).tolist()


def logits_of(answer: dict[str, Any]) -> list[float]:
    """The logits of a native answer, in the order of the documents."""
    found = {result["index"]: result["score"] for result in answer["results"]}
    return [found[index] for index in sorted(found)]


def tokens_of(text: str) -> list[int]:
    """The ids of a text's words."""
    (pair,) = WordTokenizer().encode("", [text])
    ids: list[int] = pair.sequences[0].token_ids[3:-1].tolist()
    return ids


def has_text(pair: EncodedPair, text: str) -> bool:
    """Whether all words of a text are in a pair."""
    return set(tokens_of(text)) <= set(pair.sequences[0].token_ids.tolist())


class Steps:
    """Stands before each batch and lets it go when told to: a clock that counts batches."""

    def __init__(self) -> None:
        self.come = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.is_open = False

    def __call__(self, _: object) -> None:
        """Wait for one permission; for `before_forward`."""
        self.come.release()
        if not self.is_open:
            assert self.go.acquire(timeout=60)

    def open(self) -> None:
        """Hold nothing any more."""
        self.is_open = True
        self.go.release(1000)
