"""What rankings were like when all was well: a file to compare with.

JSON: counts of logits in fixed bins, mean and variance of each signal, how many requests they come
from, the model and the day. No text of any caller is in it.
"""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tamis.engine.files import open_regular
from tamis.errors import SettingsError, UnsafeModelError
from tamis.relevance.histogram import LOGIT_EDGES

MOST_FILE_BYTES = 2**20
"""Of a baseline; one that `tamis baseline record` writes has some 5,000."""
MOST_COUNTED = 10**15
"""Of anything: sums of such counts are exact, and no request is counted so often."""
LARGEST_MEAN = 1e12
LEAST_EFFECTIVE = 0.5
"""Requests that a number of requests is worth, at least: one, were numbers exact."""

BoundedInt = Annotated[int, msgspec.Meta(ge=0, le=MOST_COUNTED)]


class Moments(msgspec.Struct, frozen=True):
    """Mean and variance of what requests have each one value of."""

    n: Annotated[
        int, msgspec.Meta(ge=0, le=MOST_COUNTED, description="Requests that have a value.")
    ]
    mean: Annotated[float, msgspec.Meta(ge=-LARGEST_MEAN, le=LARGEST_MEAN)]
    variance: Annotated[float, msgspec.Meta(ge=0, le=LARGEST_MEAN**2)]


class ScoreBins(msgspec.Struct, frozen=True):
    """Logits in the bins of `logit_edges`."""

    counts: Annotated[
        list[BoundedInt],
        msgspec.Meta(
            min_length=len(LOGIT_EDGES) + 1,
            max_length=len(LOGIT_EDGES) + 1,
            description="Up to -16, then bins 0.25 wide, then above 16.",
        ),
    ]
    n_effective: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=MOST_COUNTED, description="Requests of equal size that would say as much."
        ),
    ]


class Snapshot(msgspec.Struct, frozen=True):
    """The rankings of a number of requests."""

    model: Annotated[str, msgspec.Meta(max_length=4096)]
    n_requests: BoundedInt
    threshold: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="Below it nothing is relevant.")
    ]
    top: Annotated[ScoreBins, msgspec.Meta(description="Each request's best logit.")]
    all: Annotated[ScoreBins, msgspec.Meta(description="Every document's logit.")]
    signals: Annotated[
        dict[str, Moments],
        msgspec.Meta(
            max_length=100,
            description="retention, top5_overlap, kendall_tau, nothing_relevant, truncation, "
            "tokens",
        ),
    ]


class Baseline(msgspec.Struct, frozen=True):
    """A snapshot to keep."""

    format: Literal["tamis-baseline"]
    version: Literal[1]
    recorded: date
    logit_edges: Annotated[list[float], msgspec.Meta(max_length=len(LOGIT_EDGES))]
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
        found = msgspec.json.decode(_content(path), type=Baseline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(
            f"{path} is no baseline ({error}); `tamis baseline record` writes one"
        ) from error
    if tuple(found.logit_edges) != LOGIT_EDGES or not is_whole(found.rankings):
        raise SettingsError(
            f"{path} is a baseline with other bins, or with empty bins; record it again"
        )
    return found


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from error
    except UnsafeModelError as error:
        raise SettingsError(f"{error}: a baseline was expected") from error
    if len(content) > MOST_FILE_BYTES:
        raise SettingsError(
            f"{path} is no baseline (it has more than {MOST_FILE_BYTES:,} bytes); "
            "`tamis baseline record` writes one"
        )
    return content


def is_whole(rankings: Snapshot) -> bool:
    """Whether there is something in all that is compared."""
    bins = (rankings.top, rankings.all)
    return rankings.n_requests > 0 and all(
        sum(each.counts) > 0 and each.n_effective >= LEAST_EFFECTIVE for each in bins
    )
