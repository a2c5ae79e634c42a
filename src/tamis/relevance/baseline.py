"""What rankings were like when all was well: a file to compare with.

JSON: counts of logits in fixed bins, mean and variance of each signal, how many requests they come
from, the model and the day. No text of any caller is in it.
"""

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tamis.errors import SettingsError
from tamis.relevance.histogram import LOGIT_EDGES

NonNegativeInt = Annotated[int, msgspec.Meta(ge=0)]
FromZero = Annotated[float, msgspec.Meta(ge=0)]


class Moments(msgspec.Struct, frozen=True):
    """Mean and variance of what requests have each one value of."""

    n: Annotated[int, msgspec.Meta(ge=0, description="Requests that have a value.")]
    mean: float
    variance: FromZero


class ScoreBins(msgspec.Struct, frozen=True):
    """Logits in the bins of `logit_edges`."""

    counts: Annotated[
        list[NonNegativeInt],
        msgspec.Meta(
            min_length=len(LOGIT_EDGES) + 1,
            max_length=len(LOGIT_EDGES) + 1,
            description="Up to -16, then bins 0.25 wide, then above 16.",
        ),
    ]
    n_effective: Annotated[
        float,
        msgspec.Meta(ge=0, description="Requests of equal size that would say as much."),
    ]


class Snapshot(msgspec.Struct, frozen=True):
    """The rankings of a number of requests."""

    model: str
    n_requests: NonNegativeInt
    threshold: Annotated[float, msgspec.Meta(description="Below it nothing is relevant.")]
    top: Annotated[ScoreBins, msgspec.Meta(description="Each request's best logit.")]
    all: Annotated[ScoreBins, msgspec.Meta(description="Every document's logit.")]
    signals: Annotated[
        dict[str, Moments],
        msgspec.Meta(
            description="retention, top5_overlap, kendall_tau, nothing_relevant, truncation, tokens"
        ),
    ]


class Baseline(msgspec.Struct, frozen=True):
    """A snapshot to keep."""

    format: Literal["tamis-baseline"]
    version: Literal[1]
    recorded: date
    logit_edges: list[float]
    rankings: Snapshot


def baseline_of(rankings: Snapshot) -> Baseline:
    """A baseline of today.

    Raises:
        SettingsError: there are no rankings to keep.
    """
    if not rankings.n_requests:
        raise SettingsError("there are no rankings to record yet; send requests first")
    today = datetime.now(UTC).date()
    return Baseline("tamis-baseline", 1, today, list(LOGIT_EDGES), rankings)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline's file.

    Raises:
        SettingsError: it cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(baseline), indent=1)
    try:
        path.write_bytes(text + b"\n")
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror or error}") from error


def read_baseline(path: Path) -> Baseline:
    """Read a baseline's file.

    Raises:
        SettingsError: it cannot be read, or is not what `tamis baseline record` writes.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Baseline)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} is no baseline ({error}); `tamis baseline record` writes one"
        ) from error
    if tuple(found.logit_edges) != LOGIT_EDGES or not _is_whole(found.rankings):
        raise SettingsError(
            f"{path} is a baseline with other bins, or with none filled; record it anew"
        )
    return found


def _is_whole(rankings: Snapshot) -> bool:
    """Whether there is something in all that is compared, and no number is infinite."""
    bins = (rankings.top, rankings.all)
    return (
        rankings.n_requests > 0
        and _are_finite(rankings.signals)
        and all(sum(each.counts) > 0 and 0 < each.n_effective < math.inf for each in bins)
    )


def _are_finite(signals: Mapping[str, Moments]) -> bool:
    return all(
        math.isfinite(moments.mean) and math.isfinite(moments.variance)
        for moments in signals.values()
    )
