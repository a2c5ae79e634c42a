"""The one thread that tokenizes for all callers, and a bound on the text that waits for it."""

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tamis.engine.pairs import EncodedPair, PairEncoder
from tamis.errors import QueueFullError
from tamis.types import RerankRequest


class EncodingThread:
    """Tokenizes beside the event loop that it belongs to.

    Args:
        max_waiting_characters: Text of all requests that wait, at most; a request that is alone
            may have more.
    """

    def __init__(self, max_waiting_characters: int) -> None:
        self._max_waiting_characters = max_waiting_characters
        self._n_waiting_characters = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tamis-tokenizer")

    async def encode(
        self,
        tokenizer: PairEncoder,
        request: RerankRequest,
        texts: Sequence[str],
        indices: Sequence[int] | None = None,
        *,
        truncate: bool = True,
    ) -> list[EncodedPair]:
        """One pair for each of a request's texts, in order; `indices` are their documents'.

        Raises:
            QueueFullError: too much text waits already.
            RequestError: a text is not valid Unicode, or does not fit.
        """
        with self._admitted(len(request.query) + sum(map(len, texts))):
            return await asyncio.get_running_loop().run_in_executor(
                self._thread,
                lambda: tokenizer.encode(
                    request.query,
                    texts,
                    truncate=truncate,
                    truncation_side=request.truncation_side,
                    indices=indices,
                ),
            )

    async def close(self) -> None:
        """Stop after what waits."""
        await asyncio.to_thread(self._thread.shutdown)

    @contextmanager
    def _admitted(self, n_characters: int) -> Generator[None]:
        waiting = self._n_waiting_characters
        if waiting and waiting + n_characters > self._max_waiting_characters:
            raise QueueFullError(
                f"{waiting:,} characters wait to be tokenized and {n_characters:,} more came, "
                f"at most {self._max_waiting_characters:,} may; try again later"
            )
        self._n_waiting_characters += n_characters
        try:
            yield
        finally:
            self._n_waiting_characters -= n_characters
