"""Clocks around a runtime and a head, so that the engine itself carries none."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.engine.collate import PackedBatch
from tamis.engine.heads.head import Head, Matches
from tamis.engine.padding import Padding
from tamis.engine.pairs import Logits
from tamis.engine.runtime import Runtime


@dataclass(slots=True)
class Spent:
    """What the batches of a request took.

    Attributes:
        n_tokens: Real tokens that the runtime was given.
        n_padded_tokens: The same batches padded to their longest sequence each.
    """

    runtime_seconds: float = 0.0
    head_seconds: float = 0.0
    n_batches: int = 0
    n_tokens: int = 0
    n_padded_tokens: int = 0


class TimedRuntime:
    """A runtime that adds what it does to `spent`."""

    def __init__(self, runtime: Runtime, spent: Spent) -> None:
        self._runtime = runtime
        self._spent = spent

    @property
    def device(self) -> str:
        return self._runtime.device

    @property
    def dtype(self) -> str:
        return self._runtime.dtype

    @property
    def max_batch_tokens(self) -> int:
        return self._runtime.max_batch_tokens

    @property
    def padding(self) -> Padding:
        return self._runtime.padding

    def forward(self, batch: PackedBatch) -> NDArray[np.float32]:
        started = time.perf_counter()
        outputs = self._runtime.forward(batch)
        self._spent.runtime_seconds += time.perf_counter() - started
        self._spent.n_batches += 1
        self._spent.n_tokens += len(batch.token_ids)
        self._spent.n_padded_tokens += len(batch.lengths) * int(batch.lengths.max())
        return outputs

    def close(self) -> None:
        self._runtime.close()


class TimedHead:
    """A head that adds what it does to `spent`."""

    def __init__(self, head: Head, spent: Spent) -> None:
        self._head = head
        self._spent = spent

    @property
    def reads_tokens(self) -> bool:
        return self._head.reads_tokens

    def logits(self, outputs: NDArray[np.float32], batch: PackedBatch) -> Logits:
        started = time.perf_counter()
        logits = self._head.logits(outputs, batch)
        self._spent.head_seconds += time.perf_counter() - started
        return logits

    def matches(
        self, outputs: NDArray[np.float32], batch: PackedBatch, pair: int
    ) -> Matches | None:
        """Find matches; they are no part of scoring and are not timed."""
        return self._head.matches(outputs, batch, pair)
