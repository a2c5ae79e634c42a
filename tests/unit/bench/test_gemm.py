import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tamis.bench import gemm
from tamis.bench.gemm import EncoderSize, GemmPeak, better_peaks, measure_peaks


@pytest.fixture(autouse=True)
def small_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "SHAPES", ((32, 64), (64, 32)))
    monkeypatch.setattr(gemm, "SHAPE_SECONDS", 0.0)


@pytest.fixture(name="no_torch")
def fixture_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


def test_operations_are_those_of_the_large_model() -> None:
    large = EncoderSize(n_layers=24, hidden=1024, inner=4096)
    assert large.operations([1]) == 2 * 301_989_888 + 24 * 4 * 1024
    assert large.operations([10, 20]) == 30 * 2 * 301_989_888 + 24 * 4 * 1024 * 500


def test_without_torch_float32_is_numpys(no_torch: None) -> None:
    peak = gemm._peak("float32")
    assert (peak.library, peak.missing) == ("numpy", None)
    assert peak.operations_per_second is not None
    assert peak.operations_per_second > 0


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_without_torch_other_dtypes_are_missing_in_words(no_torch: None, dtype: str) -> None:
    peak = gemm._peak(dtype)
    assert (peak.operations_per_second, peak.library) == (None, None)
    assert (
        peak.missing == f"only torch multiplies in {dtype}, and it is not installed (tamis[torch])"
    )


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_with_torch_other_dtypes_are_measured(dtype: str) -> None:
    peak = gemm._peak(dtype)
    assert (peak.library, peak.missing) == ("torch", None)
    assert peak.operations_per_second is not None


@pytest.mark.parametrize(("slow", "fast"), [("numpy", "torch"), ("torch", "numpy")])
def test_in_float32_the_better_library_counts(
    monkeypatch: pytest.MonkeyPatch, slow: str, fast: str
) -> None:
    rates = {slow: 1.0, fast: 2.0}
    monkeypatch.setattr(gemm, "_numpy_products", lambda: "numpy")
    monkeypatch.setattr(gemm, "_torch_products", lambda dtype: "torch")
    monkeypatch.setattr(gemm, "_best_rate", rates.__getitem__)
    assert gemm._peak("float32") == GemmPeak(2.0, fast)


def test_what_torch_cannot_multiply_is_missing_in_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(products: object) -> float:
        raise RuntimeError("not implemented for 'Char'\nat some line")

    monkeypatch.setattr(gemm, "_best_rate", refuse)
    peak = gemm._peak("int8")
    assert peak.missing == "torch does not multiply in int8 here: not implemented for 'Char'"


def test_the_rate_is_that_of_the_fastest_product() -> None:
    calls: list[str] = []

    def product(name: str) -> tuple[float, Callable[[], object]]:
        return 100.0, lambda: calls.append(name)

    assert gemm._best_rate([product("one"), product("other")]) > 0
    assert calls == ["one"] * (1 + gemm.LEAST_REPEATS) + ["other"] * (1 + gemm.LEAST_REPEATS)


def test_the_better_of_two_measurements_counts_for_each_dtype() -> None:
    missing = GemmPeak(missing="why")
    one = {"float32": GemmPeak(2.0, "numpy"), "int8": missing}
    other = {"float32": GemmPeak(3.0, "torch"), "int8": missing}
    assert better_peaks(one, other) == better_peaks(other, one)
    assert better_peaks(one, other) == {"float32": GemmPeak(3.0, "torch"), "int8": missing}


def test_a_measurement_that_fails_is_missing_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "numpy.py").write_text("raise RuntimeError('out of order')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (peak,) = measure_peaks(["float32", "float32"], threads=1).values()
    assert peak == GemmPeak(missing="its measurement failed: RuntimeError: out of order")


def test_of_no_dtype_nothing_is_measured() -> None:
    assert measure_peaks([], threads=1) == {}
