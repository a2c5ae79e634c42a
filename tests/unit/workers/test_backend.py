from pathlib import Path

import pytest

from tamis.engine.backend import SupervisedBackend
from tamis.errors import InferenceError
from tests.fake_worker import CANARY, lives
from tests.processes import is_gone
from tests.unit.workers.conftest import LOGITS, PAIRS, StartWorker


def test_a_worker_scores_what_it_is_given(start_worker: StartWorker) -> None:
    backend = start_worker("answers")
    facts = backend.supervisor.wait_until_ready().facts
    assert (facts.name, facts.device, facts.max_batch_tokens) == ("fake", "cpu", 2048)
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert backend.forward(PAIRS[:1]).tolist() == LOGITS[:1]
    assert backend.fault is None
    assert isinstance(backend, SupervisedBackend)


def test_a_batch_whose_worker_dies_is_given_to_the_next_one(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    backend = start_worker("dies", "answers")
    backend.supervisor.wait_until_ready()
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert len(lives(tmp_path / "model")) == 2


def test_a_batch_whose_worker_hangs_is_given_to_the_next_one(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    backend = start_worker("hangs", "answers")
    backend.supervisor.wait_until_ready()
    assert backend.forward(PAIRS).tolist() == LOGITS
    assert is_gone(lives(tmp_path / "model")[0])


def test_a_batch_that_costs_two_workers_fails_and_the_third_goes_on(
    start_worker: StartWorker,
) -> None:
    backend = start_worker("dies", "dies", "answers")
    backend.supervisor.wait_until_ready()
    with pytest.raises(InferenceError, match=r"two workers in a row.*exit code 9"):
        backend.forward(PAIRS)
    assert backend.forward(PAIRS).tolist() == LOGITS


def test_a_model_that_raises_is_an_inference_error_without_its_words(
    start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    backend = start_worker("raises", "answers")
    backend.supervisor.wait_until_ready()
    with pytest.raises(InferenceError, match="RuntimeError") as raised:
        backend.forward(PAIRS)
    assert CANARY not in str(raised.value)
    assert "worker 0: the model failed on a batch" in caplog.text


def test_a_lack_of_memory_is_a_memory_error_and_costs_no_worker(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    backend = start_worker("has no memory")
    backend.supervisor.wait_until_ready()
    for _ in range(7):
        with pytest.raises(MemoryError):
            backend.forward(PAIRS)
    assert len(lives(tmp_path / "model")) == 1
