"""What the server keeps of every answer, to see when rankings go wrong."""

from prometheus_client import CollectorRegistry

from tamis.observability.faults import MonitoringFaults
from tamis.observability.relevance.monitor import RelevanceMonitor
from tamis.observability.relevance.request_log import RequestLog
from tamis.observability.relevance.signals import Ranking
from tamis.settings import Settings
from tamis.types import RerankRequest, RerankResult


class RelevanceWatch:
    """The monitor and, where one is asked for, the log of requests.

    Args:
        monitor: As below.
        log: None where none is asked for.
        faults: Where errors end: an answer that was computed is sent.

    Attributes:
        monitor: Signals, drift and feedback.
    """

    def __init__(
        self, monitor: RelevanceMonitor, log: RequestLog | None, faults: MonitoringFaults
    ) -> None:
        self.monitor = monitor
        self._log = log
        self._faults = faults

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
        with self._faults.contained("answer"):
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


def make_watch(
    settings: Settings, registry: CollectorRegistry, faults: MonitoringFaults
) -> RelevanceWatch:
    """What the settings ask for.

    Where there are keys, metrics tell their owners apart on a port of their own only: on the
    common one any owner of a key reads them.

    Raises:
        SettingsError: the baseline cannot be read, or the log not be written.
    """
    options, server = settings.relevance, settings.server
    by_caller = server.keys_file is None or server.metrics_port is not None
    return RelevanceWatch(
        RelevanceMonitor(options, registry, by_caller=by_caller),
        None if options.log_file is None else RequestLog(options, registry),
        faults,
    )
