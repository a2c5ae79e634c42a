import json
import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tamis.engine.collate import PackedBatch
from tamis.engine.ctranslate2 import tuning
from tamis.engine.ctranslate2.tuning import (
    BUDGETS,
    ROUNDS,
    TUNING_FILE,
    Tuning,
    choose_budget,
    keep_tuning,
    measure_speed,
    read_tuning,
    tune,
)
from tamis.engine.device import usable_cores
from tamis.engine.loading import load_model
from tamis.engine.padding import Padding
from tamis.engine.runtime import DEFAULT_BATCH_TOKENS
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
    assert choose_budget({512: [100.0], 1024: [110.0], 2048: [120.0]}) == 2048
    assert choose_budget({512: [120.0], 1024: [110.0]}) == 512
    assert choose_budget({512: [120.0, 130.0], 1024: [100.0, 100.0], 2048: [110.0, 150.0]}) == 2048


def test_a_gain_within_the_machines_noise_changes_nothing() -> None:
    assert choose_budget({512: [102.0], 1024: [100.0], 2048: [104.9]}) == 1024


def test_one_run_that_is_not_faster_than_all_of_the_default_changes_nothing() -> None:
    assert choose_budget({1024: [100.0, 100.0], 2048: [700.0, 104.0]}) == 1024
    assert choose_budget({1024: [41.0, 100.0], 2048: [102.0, 102.0]}) == 1024


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


@pytest.mark.parametrize(("last", "taken"), [(115.0, 1024), (110.0, 2048)])
def test_a_budget_has_to_win_in_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: float, taken: int
) -> None:
    told = {512: [100.0], 1024: [100.0] * (ROUNDS - 1) + [last], 2048: [120.0] * ROUNDS}
    monkeypatch.setattr(tuning, "measure_speed", lambda _, budget, __: told[budget].pop(0))
    tuned = tune(CountingRuntime(), tmp_path, threads=2, max_length=512)
    assert tuned.max_batch_tokens == taken
    assert not any(told.values())


def test_a_machines_noise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    monkeypatch.setattr(tuning, "measure_speed", lambda *_: random.uniform(400, 7400))
    taken = [
        tune(CountingRuntime(), tmp_path, threads=2, max_length=512).max_batch_tokens
        for _ in range(200)
    ]
    assert taken.count(1024) >= 190


def test_what_was_measured_is_found_again_for_the_same_processor_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = tune(CountingRuntime(), tmp_path, threads=2, max_length=512)
    assert read_tuning(tmp_path, dtype="float32", threads=2) == measured
    assert read_tuning(tmp_path, dtype="float32", threads=1) is None
    assert read_tuning(tmp_path, dtype="int8", threads=2) is None
    with monkeypatch.context() as another:
        another.setattr(tuning, "version", lambda _: "0.1")
        assert read_tuning(tmp_path, dtype="float32", threads=2) is None
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


def test_nothing_is_measured_at_a_start(
    tiny_model: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "measure_speed", lambda *_: pytest.fail("it was measured"))
    settings = ModelSettings(name=str(tiny_model), cache_dir=cache_dir)
    for _ in range(2):
        assert load_model(settings).facts.max_batch_tokens == DEFAULT_BATCH_TOKENS["cpu"]
    assert not list(cache_dir.rglob(TUNING_FILE))


def test_the_stored_budget_is_the_one_in_force(tiny_model: Path, cache_dir: Path) -> None:
    settings = ModelSettings(name=str(tiny_model), cache_dir=cache_dir)
    load_model(settings)
    (folder,) = (cache_dir / "converted").iterdir()
    keep_tuning(folder, Tuning(77, {"77": 1.0}), dtype="float32", threads=usable_cores())
    assert load_model(settings).facts.max_batch_tokens == 77
