import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tamis.engine import library_tuning
from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.conversion import convert
from tamis.engine.library_tuning import Trial, run_trial, tune_library
from tamis.engine.runtimes.gemm_library import VARIABLE, Library
from tamis.engine.tuning import TUNING_FILE, Tuning, read_tuning, tuning_key

SLOW = Tuning(1024, {"512": 900.0, "1024": 1000.0})  # a pass of two seconds
Answer = float | Exception


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a converted model might stand; CTranslate2's environment is open."""
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "ctranslate2").mkdir()
    (tmp_path / "ctranslate2" / "model.bin").write_bytes(bytes(1000))
    return tmp_path


@pytest.fixture(name="answered")
def fixture_answered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], list[Library]]:
    """Has the other process answer so; gives the libraries that were asked for."""

    def answered(answer: Answer) -> list[Library]:
        asked: list[Library] = []

        def run(trial: Trial, library: Library, *, most_seconds: float) -> float:
            asked.append(library)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(library_tuning, "run_trial", run)
        return asked

    return answered


def tuned(folder: Path, tuning: Tuning = SLOW, in_force: Library | None = "mkl") -> Tuning:
    return tune_library(
        tuning, in_force, folder, dtype="int8", threads=2, max_length=512, reads_tokens=False
    )


@pytest.mark.parametrize(("speed", "library"), [(1051.0, "onednn"), (1049.0, "mkl"), (1.0, "mkl")])
def test_the_other_library_is_taken_when_it_is_clearly_faster(
    folder: Path, answered: Callable[[Answer], list[Library]], speed: float, library: Library
) -> None:
    asked = answered(speed)
    found = tuned(folder)
    assert asked == ["onednn"]
    assert found.library == library
    assert found.library_tokens_per_second == {"mkl": 1000.0, "onednn": speed}
    assert found.max_batch_tokens == 1024
    assert read_tuning(folder, dtype="int8", threads=2) == found


def test_what_wins_is_in_force_from_the_next_start_on(
    folder: Path, answered: Callable[[Answer], list[Library]], caplog: pytest.LogCaptureFixture
) -> None:
    answered(2000.0)
    with caplog.at_level(logging.INFO):
        tuned(folder)
    assert "oneDNN is taken from the next start on" in caplog.text


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
    folder: Path,
    answered: Callable[[Answer], list[Library]],
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
) -> None:
    answered(failure)
    with caplog.at_level(logging.INFO):
        assert tuned(folder) == SLOW
    assert not (folder / TUNING_FILE).exists()
    assert "oneDNN could not be timed" in caplog.text


def test_where_there_is_one_library_nothing_is_timed(
    folder: Path, answered: Callable[[Answer], list[Library]]
) -> None:
    asked = answered(2000.0)
    assert tuned(folder, in_force=None) == SLOW
    assert asked == []


def test_a_small_model_is_not_worth_another_process(
    folder: Path, answered: Callable[[Answer], list[Library]]
) -> None:
    asked = answered(1e9)
    small = Tuning(1024, {"1024": 100_000.0})
    assert tuned(folder, small) == small
    assert asked == []


def test_what_the_user_forces_is_not_put_in_question(
    folder: Path,
    answered: Callable[[Answer], list[Library]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    asked = answered(2000.0)
    with caplog.at_level(logging.INFO):
        assert tuned(folder) == SLOW
    assert asked == []
    assert f"{VARIABLE} is set" in caplog.text


def test_a_model_that_does_not_fit_twice_is_loaded_once(
    folder: Path,
    answered: Callable[[Answer], list[Library]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = answered(2000.0)
    monkeypatch.setattr(library_tuning, "available_bytes", lambda: 1999)
    with caplog.at_level(logging.INFO):
        assert tuned(folder) == SLOW
    assert asked == []
    assert "no memory" in caplog.text
    monkeypatch.setattr(library_tuning, "available_bytes", lambda: 2000)
    assert tuned(folder).library == "onednn"


def test_a_file_of_an_earlier_version_has_no_library(folder: Path) -> None:
    held = {"max_batch_tokens": 512, "tokens_per_second": {"512": 10.0}}
    (folder / TUNING_FILE).write_text(json.dumps({tuning_key("int8", 2): held}))
    assert read_tuning(folder, dtype="int8", threads=2) == Tuning(512, {"512": 10.0})


def trial(folder: Path) -> Trial:
    return Trial(str(folder), "float32", 1, True, 64, 512, 0.0)


def test_another_process_times_a_library(tiny_maxsim: Path, tmp_path: Path) -> None:
    folder = convert(read_checkpoint(tiny_maxsim), tmp_path / "made", dtype="float32")
    assert run_trial(trial(folder), "onednn", most_seconds=60) > 0


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(subprocess.SubprocessError, match="cannot open"):
        run_trial(trial(tmp_path), "onednn", most_seconds=60)


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_trial(trial(tmp_path), "onednn", most_seconds=0.01)
