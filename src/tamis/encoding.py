"""The one thread that tokenizes for all callers, and a bound on the text that waits for it."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from tamis.engine.pairs import EncodedPair, PairEncoder
from tamis.errors import QueueFullError
from tamis.sharing import FairThread, SharedRoom
from tamis.types import RerankRequest

SLICE_CHARACTERS = 2**17
"""Of one request that are tokenized in one go, unless one text has more: about 50 ms."""


class EncodingThread:
    """Tokenizes in a thread next to its event loop, for all keys in turn.

    Args:
        max_waiting_characters: Text of all requests that wait, at most; of each key one request
            may have more.
    """

    def __init__(self, max_waiting_characters: int) -> None:
        self._max_waiting_characters = max_waiting_characters
        self._waiting = SharedRoom(max_waiting_characters)
        self._thread = FairThread("tamis-tokenizer")

    async def encode(
        self,
        tokenizer: PairEncoder,
        request: RerankRequest,
        texts: Mapping[int, str],
        *,
        caller: str = "",
        truncate: bool = True,
    ) -> dict[int, EncodedPair]:
        """One pair for each of a request's texts, by the index of its document.

        A caller that is cancelled leaves what has not begun undone.

        Raises:
            QueueFullError: too much text waits already.
            RequestError: a text is not valid Unicode, or does not fit.
        """
        indices, documents = list(texts), list(texts.values())
        pairs: list[EncodedPair] = []
        with self._admitted(caller, len(request.query) + sum(map(len, documents))):
            for part in _slices(documents):
                n_characters = len(request.query) + sum(map(len, documents[part]))
                work = partial(
                    tokenizer.encode,
                    request.query,
                    documents[part],
                    truncate=truncate,
                    truncation_side=request.truncation_side,
                    indices=indices[part],
                )
                pairs += _with_query_of(pairs, await self._thread.run(caller, n_characters, work))
        return dict(zip(indices, pairs, strict=True))

    async def close(self) -> None:
        """Stop after what the thread was given."""
        await self._thread.close()

    @contextmanager
    def _admitted(self, caller: str, n_characters: int) -> Generator[None]:
        waiting = self._waiting
        if waiting.held_by(caller) and waiting.shortage(caller, n_characters):
            raise QueueFullError(
                f"{waiting.n_held:,} characters wait to be tokenized and {n_characters:,} more "
                f"came, at most {self._max_waiting_characters:,} may; try again later"
            )
        waiting.add(caller, n_characters)
        try:
            yield
        finally:
            waiting.add(caller, -n_characters)


def _slices(texts: Sequence[str]) -> Iterator[slice]:
    """Runs of texts of at most `SLICE_CHARACTERS`; a longer text is alone."""
    start, n_characters = 0, 0
    for place, text in enumerate(texts):
        n_characters += len(text)
        if n_characters > SLICE_CHARACTERS and place > start:
            yield slice(start, place)
            start, n_characters = place, len(text)
    yield slice(start, len(texts))


def _with_query_of(before: list[EncodedPair], pairs: list[EncodedPair]) -> list[EncodedPair]:
    """Pairs that share the query's sequence with those before, where it has one of its own."""
    if not before or len(before[0].sequences) == 1:
        return pairs
    query = before[0].sequences[0]
    return [replace(pair, sequences=(query, *pair.sequences[1:])) for pair in pairs]
