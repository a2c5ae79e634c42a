"""How a model's rate is held against the machine's, and what a report is made of."""

from pathlib import Path

import pytest
from safetensors import SafetensorError

from tamis.bench import report
from tamis.bench.gemm import GemmPeak
from tamis.errors import SettingsError

MISSING = GemmPeak(missing="no torch")


def test_a_rate_is_held_against_the_dtype_in_use_and_float32() -> None:
    peaks = {"float32": GemmPeak(1e9, "numpy"), "int8": GemmPeak(2e9, "torch")}
    held = report._held_against(peaks, "int8", 1.5e9)
    assert (held["share_of_peak"], held["share_of_float32_peak"]) == (0.75, 1.5)
    assert (held["dtype"], held["missing"]) == ("int8", None)
    assert held["peaks"]["int8"]["library"] == "torch"


def test_a_peak_that_is_missing_gives_no_share_and_a_reason() -> None:
    held = report._held_against({"float32": GemmPeak(1e9, "numpy"), "int8": MISSING}, "int8", 1e9)
    assert (held["share_of_peak"], held["share_of_float32_peak"]) == (None, 1.0)
    assert held["missing"] == "no torch"


def test_a_model_elsewhere_than_on_the_cpu_is_held_against_nothing() -> None:
    held = report._held_against({}, "float16", 1e9)
    assert (held["share_of_peak"], held["share_of_float32_peak"]) == (None, None)
    assert "measured on the CPU" in held["missing"]


def test_requests_have_texts_of_their_own_and_the_first_is_the_seeds() -> None:
    asked = report.Asked("short", 2, seed=5, n_rounds=1)
    assert asked.request() == asked.request(0)
    assert asked.request(0) != asked.request(1)
    assert report.Asked("short", 2, seed=6, n_rounds=1).request() == asked.request(1)


def test_a_large_model_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot write .*file/random-large: Not a directory"):
        report._write_random_large(tmp_path / "file" / "random-large")


def test_a_disk_without_room_for_random_weights_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_: Path) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(report, "write_random_checkpoint", no_room)

    with pytest.raises(SettingsError, match=r"cannot write .*No space left"):
        report._write_random_large(tmp_path)
