"""The states of a server: loading, ready, down, draining, failed."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from tamis.assembly.assembly import Assembly
from tamis.errors import NotReadyError, TamisError
from tamis.observability.metrics import Metrics
from tamis.service import RerankService

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "down", "draining", "failed"]


class ModelLife:
    """Loads the model in a thread, so that the server answers from the start.

    Args:
        assembly: What is loaded, and closed at the end.
        metrics: Told the state.
        on_failure: Called once when loading fails, after `failure` is set.

    Attributes:
        assembly: As given.
        failure: Why the model could not be loaded.
    """

    def __init__(
        self,
        assembly: Assembly,
        metrics: Metrics,
        *,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.assembly = assembly
        self.failure: TamisError | None = None
        self.is_draining = False
        self._on_failure = on_failure
        metrics.state.watch_life(
            is_ready=lambda: self.state == "ready",
            is_stalled=lambda: assembly.vitals.is_stalled,
        )

    @property
    def state(self) -> State:
        """Where it stands; a scheduler that has died is a failure, a worker's end is not."""
        service = self.assembly.default.service
        if service is None:
            return "failed" if self.failure else "loading"
        if not service.statistics().running:
            return "failed"
        if self.is_draining:
            return "draining"
        return "down" if self.assembly.vitals.is_down else "ready"

    @property
    def degraded(self) -> str | None:
        """In which way it does less than it could; None while all is well, or not yet ready."""
        service = self.assembly.default.service
        return None if service is None else service.statistics().degraded

    def drain(self) -> bool:
        """Be unready from now on; requests are still answered. Returns whether any may come."""
        self.is_draining = True
        return self.assembly.default.service is not None

    @property
    def service(self) -> RerankService:
        """The service, once the model is ready.

        Raises:
            NotReadyError: it is not, or not any more.
        """
        if self.failure is not None:
            raise NotReadyError("the model could not be loaded; the server is shutting down")
        service = self.assembly.default.service
        if service is None:
            reason = self.assembly.vitals.reason
            because = f" ({reason})" if reason else ""
            raise NotReadyError(f"the model is not ready yet{because}; try again soon")
        return service

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Load in the background while the server runs; close everything at its end."""
        loading = asyncio.create_task(self._load())
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            await self.assembly.close()

    async def _load(self) -> None:
        try:
            await self.assembly.load()
        except TamisError as error:
            self._fail(error)
        except Exception as error:  # nobody awaits this task: it would stay "loading" for ever
            logger.exception("the model could not be loaded")
            self._fail(TamisError(f"loading the model failed ({type(error).__name__}: {error})"))

    def _fail(self, error: TamisError) -> None:
        self.failure = error
        if self._on_failure is not None:
            self._on_failure()
