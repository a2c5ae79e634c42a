"""How far rankings are from a baseline's, and from where on that is no chance.

A line is the larger of two: a distance worth a person's time, and a distance that samples of these
sizes from one distribution do not reach. The second keeps small windows and small baselines quiet,
the first large ones, where every difference is significant and few matter.

    population stability index   0.25, the usual line for "shifted"; a chi-square quantile
                                 (Yurdakul 2018: PSI / (1/n + 1/m) is chi-square with bins - 1)
    Kolmogorov-Smirnov           0.1; the two-sample test's critical value (Smirnov 1948)
    means of requests' values    0.1, of tokens a quarter; Welch's two-sample z

Windows are looked at after every request, and share most of it: the chance of a false alarm is set
to one in a million a look, which leaves less than one in a thousand for 5,000 healthy requests. n
and m count requests, not documents, whose scores in one request are not independent.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tamis.relevance.baseline import Moments, ScoreBins, Snapshot

N_BINS = 10
"""Of the baseline's scores, with as many in each as the fine bins allow; PSI's usual number."""
LEAST_REQUESTS = 100
"""Below it there is no verdict."""
PSI_LINE = 0.25
KS_LINE = 0.1
MEAN_LINE = 0.1
TOKENS_LINE = 0.25
"""Of the baseline's mean."""

_Z = 4.9
"""Standard deviations that a normal variable exceeds once in a million, either way."""
_Z_ABOVE = 4.75
"""The same, upwards only."""
_KS_FACTOR = math.sqrt(-math.log(1e-6 / 2) / 2)
"""c(alpha) of the two-sample test for alpha of one in a million: 2.69."""
_PRIOR = 0.5
"""Added to each bin's count, so that an empty one has a logarithm."""

ScoreKind = Literal["top", "all"]
DriftState = Literal["none", "waiting", "ok", "alert"]


class Verdict(msgspec.Struct, frozen=True):
    """One signal of a window against the baseline's."""

    signal: str
    distance: Annotated[
        float, msgspec.Meta(description="PSI, KS, or how far the mean is from the baseline's.")
    ]
    line: Annotated[float, msgspec.Meta(description="Beyond it is an alert.")]
    crossed: bool
    baseline: Annotated[float | None, msgspec.Meta(description="Its mean.")] = None
    now: Annotated[float | None, msgspec.Meta(description="The window's mean.")] = None


def compare(baseline: Snapshot, now: Snapshot) -> list[Verdict]:
    """All signals that both have; none where either has fewer than `LEAST_REQUESTS`."""
    if min(baseline.n_requests, now.n_requests) < LEAST_REQUESTS:
        return []
    return [
        *_scores("top", baseline.top, now.top),
        *_scores("all", baseline.all, now.all),
        *_means(baseline, now),
    ]


def state_of(baseline: Snapshot | None, verdicts: Sequence[Verdict]) -> DriftState:
    """Nothing to compare with, too little to compare, or what comparing says."""
    if baseline is None:
        return "none"
    if not verdicts:
        return "waiting"
    return "alert" if any(verdict.crossed for verdict in verdicts) else "ok"


def population_stability_index(
    expected: Sequence[int], found: Sequence[int], n_bins: int = N_BINS
) -> tuple[float, int]:
    """PSI over bins that hold equal parts of `expected`, and how many bins there are.

    Args:
        expected: Counts in fine bins; at least one is not 0.
        found: Counts in the same bins; at least one is not 0.
        n_bins: Bins at most; fewer where a fine bin holds more than its part.
    """
    groups = _equal_parts(np.array(expected), n_bins)
    n_groups = int(groups[-1]) + 1
    p = _shares(groups, np.array(expected))
    q = _shares(groups, np.array(found))
    return float(((q - p) * np.log(q / p)).sum()), n_groups


def kolmogorov_smirnov(expected: Sequence[int], found: Sequence[int]) -> float:
    """Largest distance of the two distribution functions at the bins' ends, 0..1."""
    p = np.cumsum(expected) / np.sum(expected)
    q = np.cumsum(found) / np.sum(found)
    return float(np.abs(p - q).max())


def psi_line(n_bins: int, n_expected: float, n_found: float) -> float:
    """Above it PSI is an alert, for samples of these sizes."""
    by_chance = _chi_square_quantile(n_bins - 1) * (1 / n_expected + 1 / n_found)
    return max(PSI_LINE, by_chance)


def ks_line(n_expected: float, n_found: float) -> float:
    """Above it Kolmogorov-Smirnov's distance is an alert, for samples of these sizes."""
    return max(KS_LINE, _KS_FACTOR * math.sqrt(1 / n_expected + 1 / n_found))


def mean_line(expected: Moments, found: Moments, least: float) -> float:
    """Above it the distance of two means is an alert."""
    error = math.sqrt(expected.variance / expected.n + found.variance / found.n)
    return max(least, _Z * error)


def _scores(name: ScoreKind, expected: ScoreBins, found: ScoreBins) -> Iterator[Verdict]:
    sizes = (expected.n_effective, found.n_effective)
    psi, n_bins = population_stability_index(expected.counts, found.counts)
    line = psi_line(n_bins, *sizes)
    yield Verdict(f"{name}_psi", psi, line, psi > line)
    distance = kolmogorov_smirnov(expected.counts, found.counts)
    line = ks_line(*sizes)
    yield Verdict(f"{name}_ks", distance, line, distance > line)


def _means(baseline: Snapshot, now: Snapshot) -> Iterator[Verdict]:
    for name, expected in baseline.signals.items():
        found = now.signals.get(name)
        if name == "nothing_relevant" and now.threshold != baseline.threshold:
            continue
        if found is None or min(expected.n, found.n) < LEAST_REQUESTS:
            continue
        least = TOKENS_LINE * expected.mean if name == "tokens" else MEAN_LINE
        line = mean_line(expected, found, least)
        distance = abs(found.mean - expected.mean)
        crossed = distance > line
        yield Verdict(name, distance, line, crossed, baseline=expected.mean, now=found.mean)


def _equal_parts(counts: NDArray[np.int64], n_parts: int) -> NDArray[np.int64]:
    """For each fine bin the part it falls in by its middle, numbered without gaps from 0."""
    middles = (np.cumsum(counts) - counts / 2) / counts.sum()
    parts = np.minimum((middles * n_parts).astype(np.int64), n_parts - 1)
    steps: NDArray[np.int64] = np.cumsum(np.diff(parts, prepend=parts[0]) > 0)
    return steps


def _shares(groups: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What part of all counts each group of bins has."""
    raised = np.bincount(groups, weights=counts) + _PRIOR
    shares: NDArray[np.float64] = raised / raised.sum()
    return shares


def _chi_square_quantile(degrees: int) -> float:
    """What chi-square exceeds once in a million (Wilson and Hilferty 1931)."""
    if degrees < 1:
        return 0.0
    part = 2 / (9 * degrees)
    return float(degrees * (1 - part + _Z_ABOVE * math.sqrt(part)) ** 3)
