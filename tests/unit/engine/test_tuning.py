import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tamis.engine import tuning
from tamis.engine.collate import PackedBatch
from tamis.engine.loading import load_model
from tamis.engine.padding import Padding
from tamis.engine.tuning import (
    BUDGETS,
    TUNING_FILE,
    choose_budget,
    measure_speed,
    read_tuning,
    tune,
)
from tamis.settings import ModelSettings


class CountingRuntime:
    """Answers at once and keeps the sizes of what it was asked."""

    device = "cpu"
    dtype = "float32"
    max_batch_tokens = 1024
    padding: Padding = "none"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.longest = 0

    def forward(self, batch: PackedBatch) -> NDArray[np.float32]:
        self.sizes.append(len(batch.token_ids))
        self.longest = max(self.longest, int(batch.lengths.max()))
        return np.zeros((len(batch.lengths), 1), dtype=np.float32)

    def close(self) -> None:
        self.sizes.clear()


def test_the_fastest_budget_is_taken_when_it_is_clearly_faster() -> None:
    assert choose_budget({512: 100.0, 1024: 110.0, 2048: 120.0}) == 2048
    assert choose_budget({512: 120.0, 1024: 110.0}) == 512


def test_a_gain_within_the_machines_noise_changes_nothing() -> None:
    assert choose_budget({512: 102.0, 1024: 100.0, 2048: 104.9}) == 1024


def test_no_batch_exceeds_the_budget_that_is_tried(tmp_path: Path) -> None:
    runtime = CountingRuntime()
    tune(runtime, tmp_path, threads=2, max_length=512)
    assert max(runtime.sizes) <= max(BUDGETS)
    assert max(runtime.sizes[1:]) > BUDGETS[0] / 2


def test_no_sequence_is_longer_than_the_model_reads(tmp_path: Path) -> None:
    runtime = CountingRuntime()
    tune(runtime, tmp_path, threads=2, max_length=64)
    assert runtime.longest == 64


def test_a_measurement_that_is_too_slow_ends_with_its_first_batch() -> None:
    runtime = CountingRuntime()
    speed = measure_speed(runtime, 512, 512, give_up_below=1e12)
    assert len(runtime.sizes) == 1
    assert 0 < speed < 1e12
    measure_speed(runtime, 512, 512, give_up_below=1e-3)
    assert len(runtime.sizes) > 4


def test_a_pass_that_takes_long_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = CountingRuntime()
    measure_speed(runtime, 512, 512)
    monkeypatch.setattr(tuning, "LONG_SECONDS", 0.0)
    once = CountingRuntime()
    measure_speed(once, 512, 512)
    assert runtime.sizes == 2 * once.sizes


@pytest.mark.parametrize(("again", "taken"), [(115.0, 1024), (110.0, 2048)])
def test_a_budget_has_to_win_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: float, taken: int
) -> None:
    told = {512: [100.0], 1024: [100.0, again], 2048: [120.0, 90.0]}
    monkeypatch.setattr(tuning, "measure_speed", lambda _, budget, __: told[budget].pop(0))
    tuned = tune(CountingRuntime(), tmp_path, threads=2, max_length=512)
    assert tuned.max_batch_tokens == taken
    assert not any(told.values())


def test_what_was_measured_is_found_again_for_the_same_processor_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = tune(CountingRuntime(), tmp_path, threads=2, max_length=512)
    assert read_tuning(tmp_path, dtype="float32", threads=2) == measured
    assert read_tuning(tmp_path, dtype="float32", threads=1) is None
    assert read_tuning(tmp_path, dtype="int8", threads=2) is None
    monkeypatch.setattr(tuning, "processor_name", lambda: "another")
    assert read_tuning(tmp_path, dtype="float32", threads=2) is None
    tune(CountingRuntime(), tmp_path, threads=2, max_length=512)
    assert len(json.loads((tmp_path / TUNING_FILE).read_text())) == 2


def test_a_spoilt_file_is_passed_over_and_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / TUNING_FILE).write_text('{"x": {"max_batch_tokens": 0}}')
    with caplog.at_level(logging.WARNING):
        assert read_tuning(tmp_path, dtype="float32", threads=2) is None
    assert "is not used" in caplog.text
    measured = tune(CountingRuntime(), tmp_path, threads=2, max_length=512)
    assert read_tuning(tmp_path, dtype="float32", threads=2) == measured


def test_a_measurement_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        measured = tune(CountingRuntime(), tmp_path / "gone", threads=2, max_length=512)
    assert measured.max_batch_tokens in BUDGETS
    assert "cannot keep" in caplog.text


def test_a_model_is_measured_when_it_is_converted_and_never_again(
    tiny_model: Path, cache_dir: Path
) -> None:
    settings = ModelSettings(name=str(tiny_model), cache_dir=cache_dir)
    first = load_model(settings)
    (file,) = (cache_dir / "converted").glob(f"*/{TUNING_FILE}")
    os.utime(file, ns=(0, 0))
    again = load_model(settings)
    assert again.max_batch_tokens == first.max_batch_tokens
    assert file.stat().st_mtime_ns == 0


def test_the_stored_budget_is_the_one_in_force(tiny_model: Path, cache_dir: Path) -> None:
    settings = ModelSettings(name=str(tiny_model), cache_dir=cache_dir)
    load_model(settings)
    (file,) = (cache_dir / "converted").glob(f"*/{TUNING_FILE}")
    held = json.loads(file.read_text())
    for measured in held.values():
        measured["max_batch_tokens"] = 77
    file.write_text(json.dumps(held))
    assert load_model(settings).max_batch_tokens == 77
