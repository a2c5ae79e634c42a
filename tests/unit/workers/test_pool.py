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
from tamis.workers.pool import WorkerPool
from tamis.workers.supervisor import WorkerTimeouts
from tests.fake_worker import COMMAND, lives, write_plan
from tests.integration.serving import until

QUICK = WorkerTimeouts(
    stall_seconds=5.0, initial_backoff_seconds=0.01, max_backoff_seconds=0.05, exit_seconds=1.0
)


def pool_on(folder: Path, n_workers: int) -> WorkerPool:
    """Workers on doubles that behave as the folder's plan says."""
    return WorkerPool(
        ModelSettings(name=str(folder)),
        n_workers,
        timeouts=QUICK,
        command=COMMAND,
        read_tokenizer=lambda *_: cast("PairTokenizer", WordTokenizer()),
    )


def test_the_first_worker_is_up_before_the_others_start(tmp_path: Path) -> None:
    pool = pool_on(write_plan(tmp_path / "model", "waits", "answers"), 3)
    opening = threading.Thread(target=pool.open)
    opening.start()
    until(lambda: len(lives(tmp_path / "model")) == 1)
    assert pool.backends[1].supervisor.pid is None
    (tmp_path / "model" / "go").touch()
    opening.join(30)
    assert len(lives(tmp_path / "model")) == 3
    assert pool.n_ready == 3
    pool.close()
    assert pool.n_ready == 0


def test_a_pool_opens_although_one_of_its_workers_fails(tmp_path: Path) -> None:
    pool = pool_on(write_plan(tmp_path / "model", "answers", "exits"), 2)
    pool.open()
    assert pool.n_ready == 1
    assert pool.facts.name == "fake"
    pool.close()


def test_a_batch_whose_worker_is_lost_is_given_to_a_sibling(tmp_path: Path) -> None:
    folder = write_plan(tmp_path / "model", "dies", "answers", "waits")
    pool = pool_on(folder, 2)
    pool.open()
    pairs = WordTokenizer().encode("q", ["a", "b"])
    expected = [pytest.approx(fake_logit(pair)) for pair in pairs]
    assert pool.backends[0].forward(pairs).tolist() == expected
    assert pool.n_ready == 1  # the next one has not been waited for
    assert pool.backends[1].forward(pairs).tolist() == expected
    pool.close()


def test_a_model_that_is_not_there_starts_nobody(tmp_path: Path) -> None:
    pool = pool_on(tmp_path / "nowhere", 1)
    with pytest.raises(ModelNotFoundError):
        pool.open()
    assert pool.backends[0].supervisor.pid is None
    pool.close()


def test_a_pool_that_is_closed_while_it_opens_is_not_open(tmp_path: Path) -> None:
    pool = pool_on(write_plan(tmp_path / "model", "hangs loading"), 2)
    threading.Timer(0.1, pool.close).start()
    with pytest.raises(ShuttingDownError):
        pool.open()
    with pytest.raises(NotReadyError):
        _ = pool.facts.name
    with pytest.raises(NotReadyError):
        _ = pool.tokenizer


def test_real_workers_score_as_the_model_does_here_and_convert_it_once(
    tiny_model: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = ModelSettings(name=str(tiny_model), cache_dir=cache_dir, max_length=64)
    pool = WorkerPool(settings, 2)
    pool.open()
    try:
        pairs = pool.tokenizer.encode("what is a panda", ["a bear", "paris " * 200])
        scored = [backend.forward(pairs).tolist() for backend in pool.backends]
        assert (pool.facts.runtime, pool.facts.device, pool.facts.dtype) == (
            "ctranslate2",
            "cpu",
            "float32",
        )
        assert pool.facts.max_length == 64
    finally:
        pool.close()
    model = load_model(settings)
    here = model.backend.forward(
        model.tokenizer.encode("what is a panda", ["a bear", "paris " * 200])
    )
    model.backend.close()
    assert scored == [pytest.approx(here.tolist(), abs=1e-5)] * 2
    assert caplog.text.count("converting") == 1
    assert len(list((cache_dir / "converted").iterdir())) == 1
