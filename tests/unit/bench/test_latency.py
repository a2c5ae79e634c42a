from tamis.bench.latency import latency


def test_percentiles_are_of_all_requests() -> None:
    found = latency([float(n) for n in range(1, 101)])
    assert (found.n_requests, found.p50_seconds) == (100, 50.5)
    assert 95 < found.p95_seconds < found.p99_seconds < 100


def test_of_one_request_all_percentiles_are_its_seconds() -> None:
    found = latency([0.25])
    assert found.p50_seconds == found.p95_seconds == found.p99_seconds == 0.25
