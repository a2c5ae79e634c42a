"""Takes every answer in, and says what the ranking is like."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from tamis.relevance.baseline import Baseline, Snapshot, read_baseline
from tamis.relevance.drift import DriftState, Verdict, compare, state_of
from tamis.relevance.feedback_memory import FeedbackMemory
from tamis.relevance.series import Labels, Series, SeriesTable
from tamis.relevance.signals import (
    Ranking,
    Reading,
    order_of,
    ranks_by_index,
    read,
)
from tamis.relevance.window import Window
from tamis.settings import RelevanceSettings

logger = logging.getLogger(__name__)

REQUESTS_BETWEEN_LOOKS = 50
"""At drift, for the log; metrics and statistics look whenever they are asked."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A model's window against the baseline.

    Attributes:
        verdicts: Empty without a baseline, or with too few requests.
    """

    model: str
    state: DriftState
    verdicts: tuple[Verdict, ...]

    @property
    def crossed(self) -> tuple[str, ...]:
        """Signals beyond their lines."""
        return tuple(verdict.signal for verdict in self.verdicts if verdict.crossed)


class RelevanceMonitor:
    """Watches the ranking. Belongs to one event loop.

    Args:
        settings: What is watched, and how much is kept.

    Raises:
        SettingsError: the baseline cannot be used.
    """

    def __init__(
        self,
        settings: RelevanceSettings,
    ) -> None:
        self._settings = settings
        self._windows: dict[str, Window] = {}
        self._alerts: dict[str, tuple[str, ...]] = {}
        self.baseline: Baseline | None = (
            None if settings.baseline is None else read_baseline(settings.baseline)
        )
        self.series = SeriesTable()
        self.feedback = FeedbackMemory(settings.feedback_requests)

    def observe(self, ranking: Ranking) -> None:
        """Take an answer in. Under a millisecond at 1,000 documents."""
        labels = Labels(ranking.model, ranking.dialect, ranking.caller)
        series = self.series.of(labels)
        reading = read(ranking)
        series.add(ranking, reading, threshold=self._settings.threshold)
        self._remember(ranking, reading, series)
        if reading is not None:
            window = self._window_of(ranking.model)
            window.add(reading)
            if window.n_seen % REQUESTS_BETWEEN_LOOKS == 0:
                self._look(self._drift_of(window.snapshot(ranking.model)))

    def snapshots(self) -> Iterable[Snapshot]:
        """The newest requests of each model."""
        return [window.snapshot(model) for model, window in self._windows.items()]

    def drifts(self) -> Iterable[Drift]:
        """Each model's window against the baseline."""
        return [self._drift_of(snapshot) for snapshot in self.snapshots()]

    def _drift_of(self, now: Snapshot) -> Drift:
        baseline = None if self.baseline is None else self.baseline.rankings
        verdicts = [] if baseline is None else compare(baseline, now)
        return Drift(now.model, state_of(baseline, verdicts), tuple(verdicts))

    def _window_of(self, model: str) -> Window:
        found = self._windows.get(model)
        if found is None:
            found = self._windows[model] = Window(self._settings.window, self._settings.threshold)
        return found

    def _remember(self, ranking: Ranking, reading: Reading | None, series: Series) -> None:
        if not (ranking.request_id and self._settings.feedback_requests):
            return
        order = order_of(ranking) if reading is None else reading.order
        ranks = ranks_by_index(order, len(ranking.logits))
        self.feedback.remember(ranking.caller, ranking.request_id, ranks, series)

    def _look(self, drift: Drift) -> None:
        """Log an alert when it comes, changes or goes."""
        if drift.state in ("none", "waiting") or drift.crossed == self._alerts.get(drift.model, ()):
            return
        self._alerts[drift.model] = drift.crossed
        if drift.crossed:
            logger.warning("the ranking drifts from its baseline: %s", ", ".join(drift.crossed))
        else:
            logger.info("the ranking matches its baseline again")
