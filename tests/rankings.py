"""Rankings for tests of what watches them."""

from collections.abc import Sequence

import numpy as np

from tamis.relevance.baseline import Snapshot
from tamis.relevance.signals import Ranking, read
from tamis.relevance.window import Window


def ranking(
    logits: Sequence[float] = (1.0, -1.0),
    *,
    model: str = "m",
    dialect: str = "native",
    caller: str = "",
    n_truncated: int = 0,
    n_tokens: int | None = None,
    n_shown: int | None = None,
    request_id: str = "",
) -> Ranking:
    """An answer with these logits, and ten tokens a pair."""
    return Ranking(
        model=model,
        dialect=dialect,
        caller=caller,
        logits=logits,
        n_truncated=n_truncated,
        n_tokens=10 * len(logits) if n_tokens is None else n_tokens,
        n_shown=len(logits) if n_shown is None else n_shown,
        request_id=request_id,
    )


def snapshot(n: int, *, seed: int, shift: float = 0.0, n_documents: int = 8) -> Snapshot:
    """A window full of requests with normal logits, moved by so much."""
    rng = np.random.default_rng(seed)
    window = Window(n, threshold=0.5)
    for _ in range(n):
        reading = read(ranking((rng.normal(size=n_documents) * 2 + shift).tolist()))
        assert reading is not None
        window.add(reading)
    return window.snapshot("m")
