import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from tamis.observability.samples import Samples


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    counter = Counter("a_requests", "h", ["status"], registry=made)
    counter.labels("200").inc(3)
    counter.labels("422").inc()
    Counter("a_other", "h", registry=made).inc(9)
    seconds = Histogram("a_seconds", "h", ["dialect"], buckets=(1, 2, 4), registry=made)
    for value in (0.5, 1.5, 1.5, 3.0):
        seconds.labels("native").observe(value)
    seconds.labels("tei").observe(9)
    return made


def test_counters_are_there_with_their_labels() -> None:
    samples = Samples(registry(), ["a_requests"])
    assert sorted(value for _, value in samples.of("a_requests_total")) == [1, 3]
    assert samples.one("a_requests_total", status="200") == 3
    assert samples.one("a_requests_total", status="500") == 0


def test_only_what_is_asked_for_is_read() -> None:
    assert Samples(registry(), ["a_requests"]).of("a_other_total") == []


def test_quantiles_lie_evenly_within_their_bucket() -> None:
    samples = Samples(registry(), ["a_seconds"])
    assert samples.mean("a_seconds", dialect="native") == pytest.approx(6.5 / 4)
    assert samples.quantiles("a_seconds", (0.25, 0.5, 0.75, 1.0), dialect="native") == [
        1.0,
        pytest.approx(1.5),
        2.0,
        4.0,
    ]


def test_beyond_the_last_edge_a_quantile_is_that_edge() -> None:
    assert Samples(registry(), ["a_seconds"]).quantiles("a_seconds", (0.5,), dialect="tei") == [4.0]


def test_of_nothing_there_is_no_mean_and_no_quantile() -> None:
    samples = Samples(registry(), ["a_seconds"])
    assert samples.mean("a_seconds", dialect="jina") is None
    assert samples.quantiles("a_seconds", (0.5,), dialect="jina") == [None]
