"""Detects that a caller whose connection is not being read has left before its answer.

Bytes of a next request are left unread until the first is answered, and the end of the connection
stands behind them. The end itself says little: a caller who has left and one who only sends no more
look the same until something is sent to them, which the first answers with a reset. So the first
bytes of the answer, which are the same for any, are sent before there is one.
"""

import asyncio
import select
from collections.abc import Callable

from tamis.server.framing import START_OF_AN_ANSWER, BoundedConnection

FIRST_LOOK_SECONDS = 0.05
"""Most answers are there sooner, and are sent in one piece."""
MOST_SECONDS_BETWEEN_LOOKS = 0.5

_N_KEPT = 3
"""Bytes that are kept until the caller is known to send no more."""
_HAS_SHUT = getattr(select, "POLLRDHUP", 0)  # Linux has it
_HAS_LEFT = select.POLLERR | select.POLLHUP | select.POLLNVAL


class LeavingWatch:
    """Looks, again and again, whether the caller has left; if so the connection is aborted.

    Args:
        transport: The connection.
        parser: Its HTTP.
        is_in_doubt: Whether an answer is waited for and the end of the connection not read.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        parser: BoundedConnection,
        is_in_doubt: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._parser = parser
        self._is_in_doubt = is_in_doubt
        self._elapsed = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.has_shut = False

    def begin(self) -> None:
        """Look from now on, if there is doubt."""
        if self._timer is None and self._is_in_doubt():
            self._elapsed = 0.0
            self._look_in(FIRST_LOOK_SECONDS)

    def end(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_in(self, seconds: float) -> None:
        self._elapsed += seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._is_in_doubt():
            return
        seen = self._poll()
        if seen & _HAS_LEFT:
            self._transport.abort()
            return
        self.has_shut = self.has_shut or bool(seen & _HAS_SHUT)
        self._send_early()
        self._look_in(min(self._elapsed, MOST_SECONDS_BETWEEN_LOOKS))

    def _poll(self) -> int:
        """The state of the connection, in `select.poll`'s bits."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), _HAS_SHUT)
        return sum(bits for _, bits in poll.poll(0))

    def _send_early(self) -> None:
        """The next byte of the answer, each after twice the time of the one before."""
        n_sent = self._parser.n_sent_early
        n_most = len(START_OF_AN_ANSWER) - (0 if self.has_shut else _N_KEPT)
        if n_sent < n_most and self._elapsed >= FIRST_LOOK_SECONDS * 2**n_sent:
            self._parser.n_sent_early += 1
            self._transport.write(START_OF_AN_ANSWER[n_sent : n_sent + 1])
