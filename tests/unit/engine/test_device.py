import os
from pathlib import Path

import pytest

from tamis.engine.device import resolve_device, resolve_dtype, usable_cores
from tamis.errors import RuntimeUnavailableError

CORES = len(os.sched_getaffinity(0))
ALL = ("float32", "float16", "bfloat16", "int8")


@pytest.mark.parametrize(
    ("asked", "there", "device"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_auto_takes_cuda_where_there_is_one(asked: str, there: bool, device: str) -> None:
    assert resolve_device(asked, cuda_available=there) == device


def test_cuda_that_is_not_there_is_refused_when_asked_for() -> None:
    with pytest.raises(RuntimeUnavailableError, match="no CUDA device"):
        resolve_device("cuda", cuda_available=False)


@pytest.mark.parametrize(
    ("asked", "device", "cpu_dtype", "dtype"),
    [
        ("auto", "cuda", "int8", "float16"),
        ("bfloat16", "cuda", "float32", "bfloat16"),
        ("auto", "cpu", "float32", "float32"),
        ("auto", "cpu", "int8", "int8"),
        ("float32", "cpu", "int8", "float32"),
        ("int8", "cpu", "float32", "int8"),
        ("bfloat16", "cpu", "float32", "bfloat16"),
    ],
)
def test_auto_takes_half_on_cuda_and_the_models_own_on_a_cpu(
    asked: str, device: str, cpu_dtype: str, dtype: str
) -> None:
    resolved = resolve_dtype(asked, device=device, cpu_dtype=cpu_dtype, computed=ALL)

    assert resolved == (dtype, None)


@pytest.mark.parametrize("asked", ["float16", "bfloat16", "auto"])
def test_half_precision_without_instructions_becomes_float32_with_a_word(asked: str) -> None:
    dtype, note = resolve_dtype(
        asked,
        device="cpu",
        cpu_dtype="bfloat16",
        computed=("float32", "int8"),
    )

    assert dtype == "float32"
    assert "float32 is used instead" in str(note)


def test_a_dtype_that_the_device_has_not_is_refused() -> None:
    with pytest.raises(
        RuntimeUnavailableError, match="there is no bfloat16 on cuda here, only float16"
    ):
        resolve_dtype("bfloat16", device="cuda", cpu_dtype="float32", computed=("float16",))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", CORES),
        ("50000 100000", 1),
        ("100000 100000", 1),
        (f"{CORES * 100_000 - 1} 100000", CORES),
        ("100000000 100000", CORES),
        ("", CORES),
        ("nonsense", CORES),
        ("a b", CORES),
        ("0 100000", 1),
    ],
)
def test_a_containers_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")

    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("quota", "cores"), [("-1", CORES), ("50000", 1), ("100000", 1), ("x", CORES)]
)
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_limit_of_cgroup_version_1_bounds_the_cores(
    tmp_path: Path, mount: str, quota: str, cores: int
) -> None:
    (tmp_path / mount).mkdir()
    (tmp_path / mount / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / mount / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize("limited", ["", "pods", "pods/one"])
def test_a_limit_holds_for_the_cgroups_inside(tmp_path: Path, limited: str) -> None:
    (tmp_path / "pods/one").mkdir(parents=True)
    (tmp_path / limited / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "self").write_text("0::/pods/one\n")
    assert usable_cores(tmp_path, tmp_path / "self") == 1


def test_another_cgroups_limit_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "cpu/pods/two").mkdir(parents=True)
    (tmp_path / "cpu/pods/two/cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu/pods/two/cpu.cfs_period_us").write_text("100000\n")
    for name, cores in (("one", CORES), ("two", 1)):
        (tmp_path / "self").write_text(f"4:cpuset:/pods/two\n3:cpu,cpuacct:/pods/{name}\n0::/\n")
        assert usable_cores(tmp_path, tmp_path / "self") == cores


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "there-is-none", tmp_path / "none") == CORES
    assert 1 <= usable_cores() <= CORES
