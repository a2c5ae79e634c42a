"""The model's life inside the server: loading, ready, gone."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from threading import Lock, Thread
from typing import Literal

from tamis.cascade import Cascade
from tamis.engine.loading import LoadedModel, load_model
from tamis.errors import NotReadyError, TamisError
from tamis.observability.metrics import Metrics
from tamis.scheduler.scheduler import Scheduler
from tamis.service import FirstStage, RerankService
from tamis.settings import ModelSettings, Settings, first_stage_settings

logger = logging.getLogger(__name__)

CHARACTERS_PER_TOKEN = 4
"""Of English text in XLM-R's vocabulary (the embedded model's card)."""

ModelLoader = Callable[[ModelSettings], LoadedModel]
State = Literal["loading", "ready", "failed"]


class ModelLife:
    """Loads the model beside the event loop, so that the server answers from the start.

    Args:
        load: Makes the model from its settings, in a thread.
        on_failure: Called once when loading fails, after `failure` is set.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        load: ModelLoader = load_model,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._load = load
        self._on_failure = on_failure
        self._turn = Lock()
        self._begun: Future[LoadedModel] | None = None
        self._service: RerankService | None = None
        self.model: LoadedModel | None = None
        self.first_stage: LoadedModel | None = None
        self.failure: TamisError | None = None

    @property
    def state(self) -> State:
        """Where it stands; a scheduler that has died is a failure."""
        if self._service is not None:
            return "ready" if self._service.statistics().running else "failed"
        return "failed" if self.failure else "loading"

    @property
    def service(self) -> RerankService:
        """The service, once the model is ready.

        Raises:
            NotReadyError: it is not, or not any more.
        """
        if self.failure is not None:
            raise NotReadyError("the model could not be loaded; the server is going down")
        if self._service is None:
            raise NotReadyError("the model is not ready yet; try again soon")
        return self._service

    def begin(self) -> None:
        """Start loading before there is an event loop; `run` goes on from there."""
        self._begun = self._load_in_thread(self._settings.model)

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Load in the background while the server runs; close everything at its end.

        A load that is not done by then, perhaps a download, is left behind.
        """
        loading = asyncio.create_task(self._start())
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            if self._service is not None:
                await self._service.close()
            for model in (self.first_stage, self.model):
                if model is not None:
                    model.backend.close()

    async def _start(self) -> None:
        try:
            begun = self._begun or self._load_in_thread(self._settings.model)
            self.model = await asyncio.wrap_future(begun)
            if self._settings.cascade.keep:
                first = first_stage_settings(self._settings.cascade.model, self._settings.model)
                self.first_stage = await asyncio.wrap_future(self._load_in_thread(first))
            self._service = self._serve(self.model)
        except TamisError as error:
            self._fail(error)
        except Exception as error:  # nobody awaits this task: it would stay "loading" for ever
            logger.exception("the model could not be loaded")
            self._fail(TamisError(f"loading the model failed ({type(error).__name__}: {error})"))

    def _load_in_thread(self, settings: ModelSettings) -> Future[LoadedModel]:
        """A daemon thread, unlike a pool's: the process can end before it does."""
        loaded: Future[LoadedModel] = Future()
        loaded.set_running_or_notify_cancel()

        def load() -> None:
            try:
                loaded.set_result(self._load(settings))
            except BaseException as error:  # noqa: BLE001 - raised again by who awaits the future
                loaded.set_exception(error)

        Thread(target=load, name="tamis-loading", daemon=True).start()
        return loaded

    def _fail(self, error: TamisError) -> None:
        self.failure = error
        if self._on_failure is not None:
            self._on_failure()

    def _serve(self, model: LoadedModel) -> RerankService:
        self._metrics.describe_model(
            name=model.name, runtime=model.runtime, device=model.device, dtype=model.dtype
        )
        max_queued_tokens = self._settings.scheduler.max_queued_tokens
        service = RerankService(
            model.name,
            model.tokenizer,
            self._schedule(model),
            max_waiting_characters=max_queued_tokens * CHARACTERS_PER_TOKEN,
            first_stage=self._serve_first_stage(),
        )
        self._metrics.watch_queue(service.statistics)
        return service

    def _serve_first_stage(self) -> FirstStage | None:
        first, options = self.first_stage, self._settings.cascade
        if first is None:
            return None
        cascade = Cascade(options.keep, options.margin)
        return FirstStage(first.name, first.tokenizer, self._schedule(first), cascade)

    def _schedule(self, model: LoadedModel) -> Scheduler:
        options = self._settings.scheduler
        scheduler = Scheduler(
            model.backend,
            max_batch_tokens=options.max_batch_tokens or model.max_batch_tokens,
            max_queued_tokens=options.max_queued_tokens,
            on_batch=self._metrics.observe_batch,
            turn=self._turn,
        )
        scheduler.start()
        return scheduler
