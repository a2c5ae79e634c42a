import json
import logging
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.ctranslate2 import kernel_tuning
from tamis.engine.ctranslate2 import kernels as choice
from tamis.engine.ctranslate2.conversion import convert
from tamis.engine.ctranslate2.kernel_tuning import CONFIRMATIONS, Trial, run_trial, tune_kernels
from tamis.engine.ctranslate2.kernels import Kernels
from tamis.engine.ctranslate2.tuning import TUNING_FILE, Tuning, read_tuning, tuning_key

SLOW = Tuning(1024, {"512": 900.0, "1024": 1000.0})  # a pass of two seconds
Answers = Mapping[Kernels, float | Exception]
Answered = Callable[[Answers], list[Kernels]]


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a converted model might stand, on a processor with AVX-512."""
    monkeypatch.setattr(choice, "has_avx512", lambda: True)
    (tmp_path / "ctranslate2").mkdir()
    (tmp_path / "ctranslate2" / "model.bin").write_bytes(bytes(1000))
    return tmp_path


@pytest.fixture(name="answered")
def fixture_answered(monkeypatch: pytest.MonkeyPatch) -> Answered:
    """Has the other processes answer so; gives the kernels that were asked for."""

    def answered(answers: Answers) -> list[Kernels]:
        asked: list[Kernels] = []

        def run(trial: Trial, kernels: Kernels, *, most_seconds: float) -> float:
            asked.append(kernels)
            answer = answers.get(kernels, 1.0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(kernel_tuning, "run_trial", run)
        return asked

    return answered


def tuned(folder: Path, tuning: Tuning = SLOW, in_force: Kernels | None = "mkl") -> Tuning:
    return tune_kernels(
        tuning, in_force, folder, dtype="int8", threads=2, max_length=512, reads_tokens=False
    )


@pytest.mark.parametrize(
    ("answers", "asked", "best"),
    [
        ({}, ["mkl avx512", "onednn"], "mkl"),
        ({"mkl avx512": 1049.0, "onednn": 1049.0}, ["mkl avx512", "onednn"], "mkl"),
        (
            {"onednn": 1051.0, "mkl": 1000.0},
            ["mkl avx512", "onednn", *["mkl", "onednn"] * CONFIRMATIONS],
            "onednn",
        ),
        (
            {"onednn": 1400.0, "mkl": 1390.0},
            ["mkl avx512", "onednn", *["mkl", "onednn"] * CONFIRMATIONS],
            "mkl",
        ),
        (
            {"mkl avx512": 1300.0},
            ["mkl avx512", "onednn avx512", *["mkl", "mkl avx512"] * CONFIRMATIONS],
            "mkl avx512",
        ),
        (
            {"mkl avx512": 1300.0, "onednn avx512": 1400.0},
            ["mkl avx512", "onednn avx512", *["mkl", "onednn avx512"] * CONFIRMATIONS],
            "onednn avx512",
        ),
    ],
    ids=str,
)
def test_other_kernels_are_taken_when_they_are_clearly_faster(
    folder: Path, answered: Answered, answers: Answers, asked: list[Kernels], best: Kernels
) -> None:
    was_asked = answered(answers)
    found = tuned(folder)
    assert was_asked == asked
    assert found.kernels == best
    assert set(found.kernels_tokens_per_second) == {"mkl", *asked}
    assert found.max_batch_tokens == 1024
    assert read_tuning(folder, dtype="int8", threads=2) == found


def test_a_winner_that_cannot_be_held_against_the_own_choice_again_is_not_taken(
    folder: Path, answered: Answered
) -> None:
    answered({"onednn": 1400.0, "mkl": OSError("no process")})
    assert tuned(folder).kernels == "mkl"


def test_without_avx512_the_libraries_alone_are_timed(
    folder: Path, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "has_avx512", lambda: False)
    asked = answered({"mkl": 2000.0})
    assert tuned(folder, in_force="onednn").kernels == "mkl"
    assert asked == ["mkl", *["onednn", "mkl"] * CONFIRMATIONS]


def test_what_wins_is_in_force_from_the_next_start_on(
    folder: Path, answered: Answered, caplog: pytest.LogCaptureFixture
) -> None:
    answered({"mkl avx512": 2000.0})
    with caplog.at_level(logging.INFO):
        tuned(folder)
    assert "mkl avx512 from the next start on" in caplog.text


@pytest.mark.parametrize(
    "failure",
    [
        OSError("no processes left"),
        subprocess.TimeoutExpired("python", 30),
        subprocess.SubprocessError("not compiled with Intel MKL"),
        ValueError("not JSON"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_failure_leaves_ctranslate2s_own_choice(
    folder: Path, answered: Answered, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    answered({"mkl avx512": failure, "onednn": failure})
    with caplog.at_level(logging.INFO):
        assert tuned(folder) == SLOW
    assert not (folder / TUNING_FILE).exists()
    assert "kernels onednn of ctranslate2 could not be timed" in caplog.text


def test_where_nothing_is_to_choose_nothing_is_timed(folder: Path, answered: Answered) -> None:
    asked = answered({})
    assert tuned(folder, in_force=None) == SLOW
    assert asked == []


def test_a_model_that_does_not_fit_twice_is_loaded_once(
    folder: Path,
    answered: Answered,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = answered({"onednn": 2000.0})
    monkeypatch.setattr(kernel_tuning, "available_bytes", lambda: 1999)
    with caplog.at_level(logging.INFO):
        assert tuned(folder) == SLOW
    assert asked == []
    assert "no memory" in caplog.text
    monkeypatch.setattr(kernel_tuning, "available_bytes", lambda: 2000)
    assert tuned(folder).kernels == "onednn"


def test_a_file_of_an_earlier_version_names_no_kernels(folder: Path) -> None:
    held = {"max_batch_tokens": 512, "tokens_per_second": {"512": 10.0}}
    (folder / TUNING_FILE).write_text(json.dumps({tuning_key("int8", 2): held}))
    assert read_tuning(folder, dtype="int8", threads=2) == Tuning(512, {"512": 10.0})


def trial(folder: Path) -> Trial:
    return Trial(str(folder), "float32", 1, True, 64, 512, 0.0)


def test_another_process_times_other_kernels(tiny_maxsim: Path, tmp_path: Path) -> None:
    folder = convert(read_checkpoint(tiny_maxsim), tmp_path / "made", dtype="float32")
    assert run_trial(trial(folder), "onednn", most_seconds=60) > 0


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(subprocess.SubprocessError, match="cannot open"):
        run_trial(trial(tmp_path), "onednn", most_seconds=60)


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_trial(trial(tmp_path), "onednn", most_seconds=0.01)
