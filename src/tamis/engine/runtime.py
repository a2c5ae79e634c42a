"""What the engine asks of an inference library."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tamis.engine.collate import PackedBatch
from tamis.engine.padding import Padding

DEFAULT_BATCH_TOKENS: Mapping[str, int] = {"cpu": 1024, "cuda": 16_384}
"""Until something was measured: by device."""


class Runtime(Protocol):
    """An encoder on a device. `forward` is called from one thread at a time."""

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        ...

    @property
    def dtype(self) -> str:
        """What it computes in."""
        ...

    @property
    def max_batch_tokens(self) -> int:
        """The token budget of one forward pass that suits it here."""
        ...

    @property
    def padding(self) -> Padding:
        """What its attention fills sequences of unlike lengths up to."""
        ...

    def forward(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Run the encoder on a batch.

        Returns:
            The last layer's token states end to end, (n_tokens, hidden); or, where the model
            has a classification head, each sequence's pooled first token, (n_sequences, hidden).
        """
        ...

    def close(self) -> None:
        """Give back memory; the runtime is not used after it."""
        ...
