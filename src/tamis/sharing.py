"""What keys share: a bounded room, and a thread that works for them in turn."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class SharedRoom:
    """A bounded amount of something, counted by key: bytes, tokens or characters.

    One key may have all of it. When it is full, a key still gets what is missing to its equal share
    (the size over the number of keys that hold some), so that no key can keep another one out.
    Keys that take their turn one after the other hold at most 1 + 1/2 + … + 1/n times the size.

    Args:
        size: How much there is.

    Attributes:
        n_held: How much of it all keys hold together.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: dict[str, int] = {}
        self.n_held = 0

    def held_by(self, key: str) -> int:
        """How much a key holds."""
        return self._held.get(key, 0)

    def shortage(self, key: str, n_more: int) -> int:
        """How much is missing for a key to hold this much more; 0 where there is room."""
        n_keys = len(self._held) + (key not in self._held)
        if (self.held_by(key) + n_more) * n_keys <= self._size:
            return 0
        return max(0, self.n_held + n_more - self._size)

    def add(self, key: str, n_more: int) -> None:
        """Let a key hold this much more, or, below 0, less; whether there is room is not asked."""
        n_held = self.held_by(key) + n_more
        self.n_held += n_more
        if n_held:
            self._held[key] = n_held
        else:
            self._held.pop(key, None)


class FairThread:
    """One thread that works for many keys. Belongs to one event loop.

    The key that has been given the least work goes next (start-time fair queueing: Goyal, Vin and
    Cheng, SIGCOMM 1996). Work whose caller is cancelled before it begins is not done.

    Args:
        name: Of the thread.
    """

    AT_ONCE = 2
    """Pieces of work that the thread is given: the next is there when one is done."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}
        self._served: dict[str, int] = {}
        self._clock = 0
        self._n_given = 0

    async def run(self, key: str, n_work: int, work: Callable[[], T]) -> T:
        """Do one piece of work when it is its key's turn; raises what the work raises.

        Args:
            key: For whom.
            n_work: How much it is, compared with other work.
            work: What to do.
        """
        await self._turn(key, n_work)
        loop = asyncio.get_running_loop()

        def done(_: object) -> None:
            with suppress(RuntimeError):  # the loop has ended before the thread
                loop.call_soon_threadsafe(self._give_next)

        running = self._thread.submit(work)
        running.add_done_callback(done)
        return await asyncio.wrap_future(running)

    async def close(self) -> None:
        """Stop after what the thread was given."""
        await asyncio.to_thread(self._thread.shutdown)

    async def _turn(self, key: str, n_work: int) -> None:
        if self._n_given < self.AT_ONCE:
            self._give(key, n_work)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append((n_work, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had its turn: somebody else has it now
                self._give_next()
            raise

    def _give(self, key: str, n_work: int) -> None:
        self._n_given += 1
        self._clock = max(self._clock, self._served.get(key, 0))
        self._served[key] = self._clock + n_work

    def _give_next(self) -> None:
        self._n_given -= 1
        while self._waiting and self._n_given < self.AT_ONCE:
            key = min(self._waiting, key=lambda key: self._served.get(key, 0))
            turns = self._waiting[key]
            n_work, turn = turns.popleft()
            if not turns:
                del self._waiting[key]
            if not turn.done():
                self._give(key, n_work)
                turn.set_result(None)
        if not self._n_given:
            self._served.clear()
            self._clock = 0
