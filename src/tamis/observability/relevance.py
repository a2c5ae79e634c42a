"""The ranking's metrics for Prometheus, made from the monitor's counts when they are asked for.

Not prometheus_client's own counters: a thousand scores are counted in one step there, not here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from tamis.relevance.histogram import Histogram
from tamis.relevance.monitor import RelevanceMonitor
from tamis.relevance.request_log import RequestLog
from tamis.relevance.series import (
    COUNTS,
    EVENTS,
    HISTOGRAMS,
    FeedbackCounts,
    Series,
    without_callers,
)

PREFIX = "tamis_relevance_"
LABELS = ("model", "dialect", "caller")

FEEDBACK: dict[str, tuple[str, Callable[[FeedbackCounts], Histogram]]] = {
    "feedback_rank": (
        "Rank, in the answer, of documents that callers used or that were clicked",
        lambda counts: counts.ranks,
    ),
    "feedback_given_rank": (
        "Rank that the same documents were given at",
        lambda counts: counts.given_ranks,
    ),
    "feedback_reciprocal_rank": (
        "1 / rank of the best document in an answer's first feedback",
        lambda counts: counts.reciprocal_ranks,
    ),
}


class RelevanceCollector:
    """Reads a monitor.

    Args:
        monitor: What has been seen.
        log: The log of requests, where there is one.
        by_caller: Whether callers are told apart.
    """

    def __init__(
        self, monitor: RelevanceMonitor, log: RequestLog | None = None, *, by_caller: bool = True
    ) -> None:
        self._monitor = monitor
        self._log = log
        self._by_caller = by_caller

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        series = list(self._monitor.series)
        if not self._by_caller:
            series = without_callers(series)
        yield from _counters(series)
        yield from _histograms(series)
        yield from _feedback(series)
        yield from self._windows()
        yield from self._drift()
        if self._log is not None:
            yield CounterMetricFamily(
                f"{PREFIX}log_dropped_requests",
                "Requests of the sample that the disk was too slow, too full or too small for",
                value=self._log.n_dropped,
            )

    def _windows(self) -> Iterator[Metric]:
        held = GaugeMetricFamily(
            f"{PREFIX}window_requests",
            "Newest answers that drift is looked for in",
            labels=["model"],
        )
        means = GaugeMetricFamily(
            f"{PREFIX}window_mean", "Mean of a signal of them", labels=["model", "signal"]
        )
        for snapshot in self._monitor.snapshots():
            held.add_metric([snapshot.model], snapshot.n_requests)
            for name, moments in snapshot.signals.items():
                if moments.n:
                    means.add_metric([snapshot.model, name], moments.mean)
        yield from (held, means)

    def _drift(self) -> Iterator[Metric]:
        by_scores = ["model", "scores"]
        psi = GaugeMetricFamily(
            f"{PREFIX}score_psi",
            "Population stability index against the baseline",
            labels=by_scores,
        )
        ks = GaugeMetricFamily(
            f"{PREFIX}score_ks", "Kolmogorov-Smirnov distance to the baseline", labels=by_scores
        )
        by_signal = ["model", "signal"]
        families = {
            name: GaugeMetricFamily(f"{PREFIX}{name}", text, labels=by_signal)
            for name, text in _DRIFT.items()
        }
        for drift in self._monitor.drifts():
            for verdict in drift.verdicts:
                at = [drift.model, verdict.signal]
                families["drift_distance"].add_metric(at, verdict.distance)
                families["drift_line"].add_metric(at, verdict.line)
                families["drift_alert"].add_metric(at, float(verdict.crossed))
                if verdict.baseline is not None:
                    families["baseline_mean"].add_metric(at, verdict.baseline)
                scores, _, measure = verdict.signal.partition("_")
                if measure in ("psi", "ks"):
                    (psi if measure == "psi" else ks).add_metric(
                        [drift.model, scores], verdict.distance
                    )
        yield from (psi, ks, *families.values())


_DRIFT = {
    "drift_distance": "How far a signal is from the baseline's",
    "drift_line": "Distance beyond which it is an alert",
    "drift_alert": "1 while a signal is beyond its line",
    "baseline_mean": "Mean of a signal in the baseline",
}


def _counters(every: Sequence[Series]) -> Iterator[Metric]:
    for name, text in COUNTS.items():
        family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=LABELS)
        for series in every:
            family.add_metric(_values(series), series.counts[name])
        yield family


def _histograms(every: Sequence[Series]) -> Iterator[Metric]:
    for name, (_, text) in HISTOGRAMS.items():
        family = HistogramMetricFamily(f"{PREFIX}{name}", text, labels=LABELS)
        for series in every:
            _add(family, _values(series), series.histograms[name])
        yield family


def _feedback(every: Iterable[Series]) -> Iterator[Metric]:
    given = [series for series in every if any(each.ranks.n for each in series.feedback.values())]
    for name, (text, histogram_of) in FEEDBACK.items():
        family = HistogramMetricFamily(f"{PREFIX}{name}", text, labels=[*LABELS, "event"])
        for series in given:
            for event in EVENTS:
                _add(family, [*_values(series), event], histogram_of(series.feedback[event]))
        yield family


def _values(series: Series) -> list[str]:
    labels = series.labels
    return [labels.model, labels.dialect, labels.caller]


def _add(family: HistogramMetricFamily, values: Sequence[str], histogram: Histogram) -> None:
    family.add_metric(values, histogram.cumulative(), histogram.total)
