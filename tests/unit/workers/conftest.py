"""Workers on doubles that misbehave as a plan says."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tamis.settings import ModelSettings
from tamis.testing import WordTokenizer, fake_logit
from tamis.workers.backend import WorkerBackend
from tamis.workers.channel import Start
from tamis.workers.supervisor import Supervisor, WorkerTimeouts
from tests.fake_worker import COMMAND, write_plan

PAIRS = WordTokenizer().encode("what is a panda", ["a bear", "a city " * 30])
LOGITS = [pytest.approx(fake_logit(pair)) for pair in PAIRS]
QUICK = WorkerTimeouts(
    stall_seconds=0.3,
    start_seconds=30.0,
    initial_backoff_seconds=0.01,
    max_backoff_seconds=0.05,
    exit_seconds=1.0,
)

StartWorker = Callable[..., WorkerBackend]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a backend whose workers behave as a plan says, and closes it."""
    started: list[WorkerBackend] = []

    def start(
        *plan: str, timeouts: WorkerTimeouts = QUICK, restarts: list[int] | None = None
    ) -> WorkerBackend:
        supervisor = Supervisor(
            0,
            timeouts=timeouts,
            command=COMMAND,
            on_restart=lambda: None if restarts is None else restarts.append(1),
        )
        backend = WorkerBackend(supervisor)
        started.append(backend)
        settings = ModelSettings(name="fake").model_dump_json(exclude_unset=True).encode()
        folder = str(write_plan(tmp_path / "model", *plan))
        supervisor.start(Start(settings, folder, None, logging.WARNING, os.getpid()))
        return backend

    yield start
    for backend in started:
        backend.close()
