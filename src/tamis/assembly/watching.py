"""The ranking watch that the settings ask for."""

from prometheus_client import CollectorRegistry

from tamis.observability.relevance import RelevanceCollector
from tamis.relevance.monitor import RelevanceMonitor
from tamis.relevance.request_log import RequestLog
from tamis.relevance.watch import RelevanceWatch
from tamis.settings import Settings


def make_watch(settings: Settings, registry: CollectorRegistry) -> RelevanceWatch:
    """What the settings ask for.

    With keys, metrics tell callers apart only on a port of their own: on the common port any
    caller with a key can read them.

    Raises:
        SettingsError: the baseline cannot be read, or the log not be written.
    """
    options, server = settings.relevance, settings.server
    by_caller = server.keys_file is None or server.metrics_port is not None
    monitor = RelevanceMonitor(options)
    log = None if options.log_file is None else RequestLog(options)
    registry.register(RelevanceCollector(monitor, log, by_caller=by_caller))
    return RelevanceWatch(monitor, log)
