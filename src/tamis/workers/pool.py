"""The worker pool of one model; its tokenizer runs in the server's own process."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tamis.engine.facts import ModelFacts
from tamis.engine.loading import find_model, load_tokenizer
from tamis.engine.tokenization import PairTokenizer
from tamis.errors import NotReadyError
from tamis.settings import ModelSettings
from tamis.workers.allocation import Allocation, allocate
from tamis.workers.backend import WorkerBackend
from tamis.workers.channel import Start
from tamis.workers.process import WORKER_COMMAND
from tamis.workers.supervisor import Supervisor, WorkerTimeouts

TokenizerLoader = Callable[[ModelSettings, Path], PairTokenizer]


class WorkerPool:
    """Runs a model in worker processes.

    Args:
        settings: The model's.
        n_workers: How many processes.
        timeouts: How long a worker may take.
        command: The workers' program.
        on_restart: Called before each restart of a worker.
        read_tokenizer: Reads the model's tokenizer from its folder.

    Attributes:
        backends: One per worker.
    """

    def __init__(
        self,
        settings: ModelSettings,
        n_workers: int,
        *,
        timeouts: WorkerTimeouts | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        on_restart: Callable[[], object] = lambda: None,
        read_tokenizer: TokenizerLoader = load_tokenizer,
    ) -> None:
        self._settings = settings
        self._read_tokenizer = read_tokenizer
        self._tokenizer: PairTokenizer | None = None
        self._allocations = allocate(n_workers, settings)
        self.backends = tuple(
            WorkerBackend(
                Supervisor(
                    number,
                    environment=allocation.environment,
                    timeouts=timeouts,
                    command=command,
                    on_restart=on_restart,
                )
            )
            for number, allocation in enumerate(self._allocations)
        )
        for backend in self.backends:
            backend.siblings = self.backends

    def open(self) -> None:
        """Find the model and start the workers; returns when each is up or has failed once.

        The others start once the first is up: they reuse what it has converted and measured.

        Raises:
            TamisError: the model cannot be found or loaded.
            ShuttingDownError: the pool was closed in the meantime.
        """
        folder = find_model(self._settings)
        first, *others = [
            (backend.supervisor, self._start_frame(folder, allocation))
            for backend, allocation in zip(self.backends, self._allocations, strict=True)
        ]
        first[0].start(first[1])
        first[0].wait_until_ready()
        for supervisor, start in others:
            supervisor.start(start)
        self._tokenizer = self._read_tokenizer(self._settings, folder)
        for supervisor, _ in others:
            supervisor.wait_until_ready_or_failed()

    @property
    def facts(self) -> ModelFacts:
        """What the first worker said about the model.

        Raises:
            NotReadyError: it has not been up yet.
        """
        ready = self.backends[0].supervisor.ready
        if ready is None:
            raise NotReadyError("the model's first worker is not up yet")
        return ready.facts

    @property
    def tokenizer(self) -> PairTokenizer:
        """The model's tokenizer.

        Raises:
            NotReadyError: the pool is not open yet.
        """
        if self._tokenizer is None:
            raise NotReadyError("the model's tokenizer is not loaded yet")
        return self._tokenizer

    @property
    def n_ready(self) -> int:
        """Workers that are up."""
        return sum(backend.fault is None for backend in self.backends)

    def close(self) -> None:
        """Stop all workers, even in the middle of a batch."""
        for backend in self.backends:
            backend.supervisor.begin_close()
        for backend in self.backends:
            backend.close()

    def _start_frame(self, folder: Path, allocation: Allocation) -> Start:
        settings = self._settings.model_copy(update={"threads": allocation.threads})
        return Start(
            settings=settings.model_dump_json(exclude_unset=True).encode(),
            folder=str(folder),
            cores=None if allocation.cores is None else list(allocation.cores),
            level=logging.getLogger().getEffectiveLevel(),
            parent=os.getpid(),
        )
