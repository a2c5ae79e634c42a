import logging
import threading
from pathlib import Path
from typing import cast

import pytest

from tamis.engine.loading import load_model
from tamis.engine.tokenization import PairTokenizer
from tamis.errors import ModelNotFoundError, NotReadyError, ShuttingDownError
from tamis.settings import ModelSettings
from tamis.testing import WordTokenizer, fake_logit
from tamis.workers.backend import Limits
from tamis.workers.crew import WorkerCrew
from tests.fake_worker import COMMAND, lives, write_plan
from tests.integration.serving import until

QUICK = Limits(stall=5.0, first_pause=0.01, longest_pause=0.05, end=1.0)


def crew_on(folder: Path, n_workers: int) -> WorkerCrew:
    """Workers on doubles that behave as the folder's plan says."""
    return WorkerCrew(
        ModelSettings(name=str(folder)),
        n_workers,
        limits=QUICK,
        command=COMMAND,
        read_tokenizer=lambda *_: cast("PairTokenizer", WordTokenizer()),
    )


def test_the_first_worker_is_up_before_the_others_start(tmp_path: Path) -> None:
    crew = crew_on(write_plan(tmp_path / "model", "waits", "answers"), 3)
    opening = threading.Thread(target=crew.open)
    opening.start()
    until(lambda: len(lives(tmp_path / "model")) == 1)
    assert crew.backends[1].pid is None
    (tmp_path / "model" / "go").touch()
    opening.join(30)
    assert len(lives(tmp_path / "model")) == 3
    assert crew.n_ready == 3
    crew.close()
    assert crew.n_ready == 0


def test_a_crew_is_open_although_one_of_it_fails(tmp_path: Path) -> None:
    crew = crew_on(write_plan(tmp_path / "model", "answers", "exits"), 2)
    crew.open()
    assert crew.n_ready == 1
    assert crew.facts.name == "fake"
    crew.close()


def test_a_batch_whose_worker_is_lost_is_given_to_a_colleague(tmp_path: Path) -> None:
    folder = write_plan(tmp_path / "model", "dies", "answers", "waits")
    crew = crew_on(folder, 2)
    crew.open()
    pairs = WordTokenizer().encode("q", ["a", "b"])
    expected = [pytest.approx(fake_logit(pair)) for pair in pairs]
    assert crew.backends[0].forward(pairs).tolist() == expected
    assert crew.n_ready == 1  # the next one has not been waited for
    assert crew.backends[1].forward(pairs).tolist() == expected
    crew.close()


def test_a_model_that_is_not_there_starts_nobody(tmp_path: Path) -> None:
    crew = crew_on(tmp_path / "nowhere", 1)
    with pytest.raises(ModelNotFoundError):
        crew.open()
    assert crew.backends[0].pid is None
    crew.close()


def test_a_crew_that_is_closed_while_it_opens_is_not_open(tmp_path: Path) -> None:
    crew = crew_on(write_plan(tmp_path / "model", "hangs loading"), 2)
    threading.Timer(0.1, crew.close).start()
    with pytest.raises(ShuttingDownError):
        crew.open()
    with pytest.raises(NotReadyError):
        _ = crew.facts.name
    with pytest.raises(NotReadyError):
        _ = crew.tokenizer


def test_real_workers_score_as_the_model_does_here_and_convert_it_once(
    tiny_model: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = ModelSettings(name=str(tiny_model), cache_dir=cache_dir, max_length=64)
    crew = WorkerCrew(settings, 2)
    crew.open()
    try:
        pairs = crew.tokenizer.encode("what is a panda", ["a bear", "paris " * 200])
        scored = [backend.forward(pairs).tolist() for backend in crew.backends]
        facts = crew.facts
        assert (facts.runtime, facts.device, facts.dtype) == ("ctranslate2", "cpu", "float32")
        assert crew.facts.max_length == 64
    finally:
        crew.close()
    model = load_model(settings)
    here = model.backend.forward(
        model.tokenizer.encode("what is a panda", ["a bear", "paris " * 200])
    )
    model.backend.close()
    assert scored == [pytest.approx(here.tolist(), abs=1e-5)] * 2
    assert caplog.text.count("converting") == 1
    assert len(list((cache_dir / "converted").iterdir())) == 1
