"""A model in a worker process, as a backend."""

import logging
from collections.abc import Sequence
from threading import Lock

from tamis.engine.backend import Fault
from tamis.engine.padding import Padding
from tamis.engine.pairs import EncodedPair, Logits
from tamis.errors import InferenceError
from tamis.workers.channel import Work, pack
from tamis.workers.supervisor import Supervisor, WorkerLostError

logger = logging.getLogger(__name__)


class WorkerBackend:
    """Has batches run by a supervised worker.

    A batch whose worker was lost is retried once, on a sibling or on the restarted worker. That is
    safe: a batch has no effect but its logits.

    Args:
        supervisor: Keeps the worker running.

    Attributes:
        supervisor: As given.
        siblings: Backends of the same model; this one may be among them.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.siblings: Sequence[WorkerBackend] = ()
        self._turn = Lock()

    @property
    def fault(self) -> Fault | None:
        return self.supervisor.fault

    @property
    def padding(self) -> Padding:
        ready = self.supervisor.ready
        return "none" if ready is None else ready.padding

    def wait_until_available(self, seconds: float) -> None:
        self.supervisor.wait_until_available(seconds)

    def restart(self, reason: str) -> None:
        self.supervisor.restart(reason)

    def forward(self, pairs: Sequence[EncodedPair]) -> Logits:
        """Run a batch on the worker; if the worker is lost, retry once.

        Raises:
            InferenceError: the model raised, or two workers were lost on these pairs.
            MemoryError: the worker has too little memory for them.
            NotReadyError: no worker is available.
            ShuttingDownError: the server is shutting down.
        """
        work, n_tokens = pack(pairs), sum(pair.n_tokens for pair in pairs)
        try:
            return self.exchange(work, n_tokens)
        except WorkerLostError:
            logger.warning("retrying a batch of %d pairs on another worker", len(pairs))
        available = (one for one in self.siblings if one is not self and one.fault is None)
        try:
            return next(available, self).exchange(work, n_tokens)
        except WorkerLostError as lost:
            raise InferenceError(f"two workers in a row were lost on a batch: {lost}") from lost

    def exchange(self, work: Work, n_tokens: int) -> Logits:
        """Submit a batch and wait for its logits; siblings take turns.

        There is no timeout here: the supervisor settles every batch.
        """
        with self._turn:
            return self.supervisor.submit(work, n_tokens).result()

    def close(self) -> None:
        """Stop the worker; a running batch gets `ShuttingDownError`."""
        self.supervisor.close()
