"""What the monitor knows, as `GET /v1/stats` sends it."""

from collections.abc import Iterable
from datetime import date
from typing import Annotated

import msgspec

from tamis.relevance.baseline import Snapshot
from tamis.relevance.drift import DriftState, Verdict
from tamis.relevance.histogram import Histogram
from tamis.relevance.monitor import RelevanceMonitor
from tamis.relevance.series import FeedbackCounts, Series, together


class HistogramReport(msgspec.Struct):
    """Counts in bins."""

    edges: Annotated[
        list[float], msgspec.Meta(description="Upper end of each bin but the last, which has none.")
    ]
    counts: list[int]
    mean: Annotated[float | None, msgspec.Meta(description="Null without any value.")]


class FeedbackReport(msgspec.Struct):
    """What callers said of documents, by one event."""

    event: str
    documents: int
    mean_reciprocal_rank: Annotated[
        float | None,
        msgspec.Meta(description="Mean of 1 / rank of the best document in first feedback."),
    ]
    first_share: Annotated[float | None, msgspec.Meta(description="Share of them at rank 1.")]
    first_share_given: Annotated[
        float | None, msgspec.Meta(description="Share of them that were given first.")
    ]
    ranks: HistogramReport
    given_ranks: HistogramReport


class SeriesReport(msgspec.Struct):
    """Signals of some answers since the server's start; shares are null without such answers."""

    model: str
    dialect: str
    caller: str
    counts: dict[str, int]
    nothing_relevant: float | None
    retention: Annotated[
        float | None, msgspec.Meta(description="How often the first document given stays first.")
    ]
    truncation: Annotated[float | None, msgspec.Meta(description="Share of documents cut.")]
    histograms: dict[str, HistogramReport]
    feedback: list[FeedbackReport]


class DriftReport(msgspec.Struct):
    """A model's newest answers against the baseline."""

    model: str
    state: Annotated[
        DriftState,
        msgspec.Meta(description="none: no baseline; waiting: fewer than 100 answers yet."),
    ]
    verdicts: list[Verdict]


class BaselineReport(msgspec.Struct):
    """Where the baseline is from."""

    model: str
    recorded: date
    n_requests: int


class RelevanceReport(msgspec.Struct):
    """The ranking, watched."""

    threshold: Annotated[float, msgspec.Meta(description="Below it nothing is relevant.")]
    together: Annotated[SeriesReport, msgspec.Meta(description="All answers of the server.")]
    series: Annotated[
        list[SeriesReport],
        msgspec.Meta(description="By model, dialect and caller; with keys your own alone."),
    ]
    windows: Annotated[list[Snapshot], msgspec.Meta(description="The newest answers, by model.")]
    baseline: BaselineReport | None
    drift: list[DriftReport]


def report(monitor: RelevanceMonitor, *, threshold: float, caller: str | None) -> RelevanceReport:
    """All of it.

    Args:
        monitor: Who knows it.
        threshold: The score below which nothing is relevant.
        caller: Whose series are in it; everyone's, and the shared one, if None.
    """
    every = list(monitor.series)
    own = [series for series in every if caller is None or series.labels.caller == caller]
    if caller is not None:
        own = [series for series in own if series is not monitor.series.other]
    baseline = monitor.baseline
    return RelevanceReport(
        threshold=threshold,
        together=_series(together(every)),
        series=[_series(series) for series in own],
        windows=list(monitor.snapshots()),
        baseline=None
        if baseline is None
        else BaselineReport(
            baseline.rankings.model, baseline.recorded, baseline.rankings.n_requests
        ),
        drift=[
            DriftReport(drift.model, drift.state, list(drift.verdicts))
            for drift in monitor.drifts()
        ],
    )


def _series(series: Series) -> SeriesReport:
    counts, labels = series.counts, series.labels
    return SeriesReport(
        model=labels.model,
        dialect=labels.dialect,
        caller=labels.caller,
        counts=dict(counts),
        nothing_relevant=_share(counts["nothing_relevant_requests"], counts["requests"]),
        retention=_share(counts["retained_requests"], counts["compared_requests"]),
        truncation=_share(counts["truncated_documents"], counts["documents"]),
        histograms={name: _histogram(each) for name, each in series.histograms.items()},
        feedback=list(_feedback(series.feedback.items())),
    )


def _feedback(every: Iterable[tuple[str, FeedbackCounts]]) -> Iterable[FeedbackReport]:
    for event, counts in every:
        n = counts.ranks.n
        yield FeedbackReport(
            event=event,
            documents=n,
            mean_reciprocal_rank=counts.reciprocal_ranks.mean,
            first_share=_share(int(counts.ranks.counts[0]), n),
            first_share_given=_share(int(counts.given_ranks.counts[0]), n),
            ranks=_histogram(counts.ranks),
            given_ranks=_histogram(counts.given_ranks),
        )


def _histogram(histogram: Histogram) -> HistogramReport:
    return HistogramReport(list(histogram.edges), histogram.counts.tolist(), histogram.mean)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
