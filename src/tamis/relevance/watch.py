"""What the server keeps of every answer, to see when rankings go wrong."""

from tamis.relevance.monitor import RelevanceMonitor
from tamis.relevance.request_log import RequestLog
from tamis.relevance.signals import Ranking
from tamis.types import RerankRequest, RerankResult


class RelevanceWatch:
    """The monitor and, where one is asked for, the log of requests.

    Attributes:
        monitor: Signals, drift and feedback.
    """

    def __init__(self, monitor: RelevanceMonitor, log: RequestLog | None) -> None:
        self.monitor = monitor
        self._log = log

    def answered(
        self,
        request: RerankRequest,
        result: RerankResult,
        *,
        dialect: str,
        caller: str,
        request_id: str,
    ) -> None:
        """Take in a request that was answered."""
        ranking = Ranking(
            model=result.model,
            dialect=dialect,
            caller=caller,
            logits=result.logits,
            n_truncated=result.usage.n_truncated,
            n_tokens=result.usage.n_tokens,
            n_shown=len(result.results),
            request_id=request_id,
            shown=[document.index for document in result.results],
            is_part=result.degraded,
        )
        self.monitor.observe(ranking)
        if self._log is not None:
            self._log.offer(ranking, request)

    def close(self) -> None:
        """Write what waits to be written."""
        if self._log is not None:
            self._log.close()
