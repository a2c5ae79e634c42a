"""Signals since the server's start, by model, dialect and caller, in a bounded number of series."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tamis.relevance.histogram import (
    DISPLACEMENT_EDGES,
    MARGIN_EDGES,
    RANK_EDGES,
    SCORE_EDGES,
    SHARE_EDGES,
    TAU_EDGES,
    Histogram,
)
from tamis.relevance.signals import OrderSignals, Ranking, Reading

EVENTS = ("used", "clicked")
"""What a caller can say of a document: it went into a prompt or an answer; a person chose it."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What a series is kept for."""

    model: str
    dialect: str
    caller: str


MAX_SERIES = 50
"""Models, dialects and callers told apart; the rest is `OTHER`."""
OTHER = Labels("other", "other", "other")
"""Everything without its own series; no dialect has this name."""


class FeedbackCounts:
    """What callers said of documents, by one event.

    Attributes:
        ranks: Of the documents, in the answer.
        given_ranks: Of the same documents, as they were given.
        reciprocal_ranks: 1 / rank of the best document in an answer's first feedback.
    """

    __slots__ = ("given_ranks", "ranks", "reciprocal_ranks")

    def __init__(self) -> None:
        self.ranks = Histogram(RANK_EDGES)
        self.given_ranks = Histogram(RANK_EDGES)
        self.reciprocal_ranks = Histogram(SHARE_EDGES)

    def include(self, other: "FeedbackCounts") -> None:
        """Count what another one has counted, too."""
        self.ranks.include(other.ranks)
        self.given_ranks.include(other.given_ranks)
        self.reciprocal_ranks.include(other.reciprocal_ranks)


COUNTS = {
    "requests": "Answers in which every document has its score",
    "partial_requests": "Answers in which some has none, or a cascade's first stage's alone; "
    "in no other signal of the order",
    "empty_requests": "Answers that `top_n` and threshold left no document in",
    "nothing_relevant_requests": "Answers whose best score is below `relevance.threshold`",
    "compared_requests": "Answers with two documents or more",
    "retained_requests": "Answers whose first document given stays first",
    "documents": "Documents of all answers",
    "truncated_documents": "Documents that were cut to fit",
    "tokens": "Tokens of all pairs",
}
"""What a series counts, and the help of each metric."""

HISTOGRAMS = {
    "top_score": (SCORE_EDGES, "Score of the best document of an answer"),
    "score": (SCORE_EDGES, "Scores of all documents"),
    "margin_logits": (MARGIN_EDGES, "Logit of the best document less that of the second"),
    "top5_overlap_ratio": (SHARE_EDGES, "Share of the first five given among the best five"),
    "displacement_ranks": (DISPLACEMENT_EDGES, "Places a document moves, on an answer's average"),
    "kendall_tau": (TAU_EDGES, "Agreement of an answer with the order given, -1 to 1"),
}


class Series:
    """Signals of some answers, added up.

    Attributes:
        counts: By the names in `COUNTS`.
        histograms: By the names in `HISTOGRAMS`.
        feedback: By event.
    """

    __slots__ = ("counts", "feedback", "histograms", "labels")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.counts = dict.fromkeys(COUNTS, 0)
        self.histograms = {name: Histogram(edges) for name, (edges, _) in HISTOGRAMS.items()}
        self.feedback = {event: FeedbackCounts() for event in EVENTS}

    def add(self, ranking: Ranking, reading: Reading | None, *, threshold: float) -> None:
        """Count one answer.

        Args:
            ranking: The answer.
            reading: What it says; None where it is a part only.
            threshold: The score below which nothing is relevant.
        """
        counts = self.counts
        counts["documents"] += len(ranking.logits)
        counts["truncated_documents"] += ranking.n_truncated
        counts["tokens"] += ranking.n_tokens
        if reading is None:
            counts["partial_requests"] += 1
            return
        counts["requests"] += 1
        counts["empty_requests"] += ranking.n_shown == 0
        counts["nothing_relevant_requests"] += reading.best_score < threshold
        self.histograms["top_score"].add(reading.best_score)
        self.histograms["score"].add_all(reading.scores)
        if reading.margin is not None:
            self.histograms["margin_logits"].add(reading.margin)
        if reading.against_given is not None:
            self._add_order(reading.against_given)

    def include(self, other: "Series") -> None:
        """Count what another one has counted, too."""
        for name, count in other.counts.items():
            self.counts[name] += count
        for name, histogram in other.histograms.items():
            self.histograms[name].include(histogram)
        for event, feedback in other.feedback.items():
            self.feedback[event].include(feedback)

    def _add_order(self, order: OrderSignals) -> None:
        self.counts["compared_requests"] += 1
        self.counts["retained_requests"] += order.retained
        self.histograms["displacement_ranks"].add(order.displacement)
        self.histograms["kendall_tau"].add(order.kendall_tau)
        if order.top_overlap is not None:
            self.histograms["top5_overlap_ratio"].add(order.top_overlap)


class SeriesTable:
    """A series for each model, dialect and caller that has one; the rest share one.

    Args:
        max_series: How many, not counting the shared one.

    Attributes:
        other: The shared one.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._series: dict[Labels, Series] = {}
        self.other = Series(OTHER)
        self._has_other = False

    def of(self, labels: Labels) -> Series:
        """Where answers with these labels are counted."""
        found = self._series.get(labels)
        if found is not None:
            return found
        if len(self._series) < self._max_series:
            return self._series.setdefault(labels, Series(labels))
        self._has_other = True
        return self.other

    def __iter__(self) -> Iterator[Series]:
        """All of them, the shared one last."""
        yield from self._series.values()
        if self._has_other:
            yield self.other


def without_callers(every: Iterable[Series]) -> list[Series]:
    """The series of each model and dialect, of all callers together."""
    found: dict[Labels, Series] = {}
    for series in every:
        labels = Labels(series.labels.model, series.labels.dialect, "")
        found.setdefault(labels, Series(labels)).include(series)
    return list(found.values())


def together(every: Iterable[Series]) -> Series:
    """All of them in one."""
    whole = Series(Labels("", "", ""))
    for series in every:
        whole.include(series)
    return whole
