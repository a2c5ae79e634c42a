"""All workers of one model, and the model's tokenizer in the server's own process."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tamis.engine.facts import ModelFacts
from tamis.engine.loading import find_model, load_tokenizer
from tamis.engine.tokenization import PairTokenizer
from tamis.errors import NotReadyError
from tamis.settings import ModelSettings
from tamis.workers.backend import Limits, WorkerBackend
from tamis.workers.channel import Start
from tamis.workers.process import WORKER_COMMAND
from tamis.workers.shares import Share, share_out

TokenizerLoader = Callable[[ModelSettings, Path], PairTokenizer]


class WorkerCrew:
    """A model that processes of their own serve.

    Args:
        settings: Of the model.
        n_workers: How many processes.
        limits: How long things may take.
        command: The workers' program.
        on_restart: Called before each start but a worker's first.
        read_tokenizer: Reads the model's tokenizer from its folder.

    Attributes:
        backends: One for each worker.
    """

    def __init__(
        self,
        settings: ModelSettings,
        n_workers: int,
        *,
        limits: Limits | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        on_restart: Callable[[], object] = lambda: None,
        read_tokenizer: TokenizerLoader = load_tokenizer,
    ) -> None:
        self._settings = settings
        self._read_tokenizer = read_tokenizer
        self._tokenizer: PairTokenizer | None = None
        self._shares = share_out(n_workers, settings)
        self.backends = tuple(
            WorkerBackend(
                number,
                environment=share.environment,
                limits=limits,
                command=command,
                on_restart=on_restart,
            )
            for number, share in enumerate(self._shares)
        )
        for backend in self.backends:
            backend.colleagues = self.backends

    def open(self) -> None:
        """Find the model and start the workers; returns when each is up or has failed once.

        The first is up before the others start: what it converts and measures, they find.

        Raises:
            TamisError: the model cannot be found or loaded.
            ShuttingDownError: the crew was closed meanwhile.
        """
        folder = find_model(self._settings)
        first, *others = zip(self.backends, self._shares, strict=True)
        first[0].start(self._orders(folder, first[1]))
        first[0].wait_until_ready()
        for backend, share in others:
            backend.start(self._orders(folder, share))
        self._tokenizer = self._read_tokenizer(self._settings, folder)
        for backend, _ in others:
            backend.wait_until_settled()

    @property
    def facts(self) -> ModelFacts:
        """What the first worker has said of the model.

        Raises:
            NotReadyError: it has not been up yet.
        """
        ready = self.backends[0].ready
        if ready is None:
            raise NotReadyError("the model's first worker is not up yet")
        return ready.facts

    @property
    def tokenizer(self) -> PairTokenizer:
        """The model's tokenizer.

        Raises:
            NotReadyError: the crew is not open yet.
        """
        if self._tokenizer is None:
            raise NotReadyError("the model's tokenizer is not loaded yet")
        return self._tokenizer

    @property
    def n_ready(self) -> int:
        """Workers that are up."""
        return sum(backend.fault is None for backend in self.backends)

    def close(self) -> None:
        """End all workers, whatever they are at."""
        for backend in self.backends:
            backend.hang_up()
        for backend in self.backends:
            backend.close()

    def _orders(self, folder: Path, share: Share) -> Start:
        settings = self._settings.model_copy(update={"threads": share.threads})
        return Start(
            settings=settings.model_dump_json(exclude_unset=True).encode(),
            folder=str(folder),
            cores=None if share.cores is None else list(share.cores),
            level=logging.getLogger().getEffectiveLevel(),
            parent=os.getpid(),
        )
