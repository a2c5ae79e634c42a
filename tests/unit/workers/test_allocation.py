from pathlib import Path

import pytest

from tamis.settings import ModelSettings
from tamis.workers.allocation import (
    DEVICES_VARIABLE,
    Allocation,
    allocate,
    allocate_cores,
    cuda_devices,
)


def test_workers_get_neighbouring_cores_each_its_own() -> None:
    assert allocate_cores(2, [0, 1, 2, 3], n_usable=4) == [
        Allocation(2, (0, 1)),
        Allocation(2, (2, 3)),
    ]


def test_what_does_not_divide_is_left_to_the_server() -> None:
    assert allocate_cores(3, list(range(8)), n_usable=8)[-1] == Allocation(2, (4, 5))


@pytest.mark.parametrize(
    ("n_workers", "n_cores", "n_usable", "threads", "each"),
    [
        pytest.param(1, 4, 4, 0, 4, id="one worker has all of them"),
        pytest.param(2, 8, 4, 0, 2, id="a quota"),
        pytest.param(4, 2, 2, 0, 1, id="more workers than cores"),
        pytest.param(2, 8, 8, 3, 3, id="threads that the user names"),
        pytest.param(2, 0, 4, 0, 2, id="a system that binds nobody"),
    ],
)
def test_nobody_is_bound_where_the_system_knows_better(
    n_workers: int, n_cores: int, n_usable: int, threads: int, each: int
) -> None:
    allocations = allocate_cores(
        n_workers, list(range(n_cores)), n_usable=n_usable, threads=threads
    )
    assert allocations == [Allocation(each)] * n_workers


def test_devices_are_those_the_user_names_or_the_driver_lists(tmp_path: Path) -> None:
    assert cuda_devices({DEVICES_VARIABLE: "2, 5"}) == ["2", "5"]
    assert cuda_devices({DEVICES_VARIABLE: "-1"}) == []
    assert cuda_devices({DEVICES_VARIABLE: ""}) == []
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert cuda_devices({}, tmp_path) == ["0", "1"]
    assert cuda_devices({}, tmp_path / "none") == []


def test_workers_get_the_devices_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICES_VARIABLE, "4,7")
    named = [allocation.environment for allocation in allocate(3, ModelSettings())]
    assert named == [{DEVICES_VARIABLE: name} for name in ("4", "7", "4")]
    assert all(
        not allocation.environment for allocation in allocate(3, ModelSettings(device="cpu"))
    )
