"""The model's life inside the server: loading, ready, gone."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from threading import Lock, Thread
from typing import Literal, TypeVar

from tamis.cache.pair_keys import PairKeys
from tamis.cache.read_through import ReadThrough
from tamis.cache.scores import ScoreCache
from tamis.cascade import Cascade
from tamis.encoding import EncodingThread
from tamis.engine.device import hardware_name
from tamis.engine.loading import (
    WARM_UP_DOCUMENTS,
    WARM_UP_QUERY,
    LoadedModel,
    load_model,
    load_tokenizer,
)
from tamis.errors import NotReadyError, TamisError
from tamis.observability.devices import Device
from tamis.observability.metrics import Metrics
from tamis.scheduler.execution import BatchRunner, MakeBackend
from tamis.scheduler.scheduler import Scheduler
from tamis.server.caching import make_cache, secret_of
from tamis.server.served import LocalModel, ModelLoader, ServedModel, WorkersModel
from tamis.server.vitals import Vitals
from tamis.service import FirstStage, RerankService
from tamis.settings import ModelSettings, Settings, first_stage_settings
from tamis.stage import ModelStage
from tamis.timing import PhaseObserver
from tamis.workers.pool import TokenizerLoader, WorkerPool
from tamis.workers.process import WORKER_COMMAND
from tamis.workers.stall_detector import StallDetector, WatchedBackend
from tamis.workers.supervisor import WorkerTimeouts

logger = logging.getLogger(__name__)

CHARACTERS_PER_TOKEN = 4
"""Of English text in XLM-R's vocabulary (the embedded model's card)."""

State = Literal["loading", "ready", "down", "draining", "failed"]
Made = TypeVar("Made")


class ModelLife:
    """Loads the model beside the event loop, so that the server answers from the start.

    Args:
        load: Makes the model from its settings, in a thread.
        on_failure: Called once when loading fails, after `failure` is set.
        command: The program of workers, where the settings ask for some.
        timing: Hears how long each phase of a request takes; the metrics do if None.

    Attributes:
        timing: As given.
        vitals: Whether what runs the models can run them.
        cache: Of scores, once the model is ready.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        load: ModelLoader = load_model,
        on_failure: Callable[[], None] | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        timing: PhaseObserver | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self.timing = timing or metrics.phases
        self._load = load
        self._on_failure = on_failure
        self._command = command
        self._pools: list[WorkerPool] = []
        self._turn = Lock()
        self._begun: Future[LoadedModel] | None = None
        self._loads: list[Future[LoadedModel]] = []
        self._service: RerankService | None = None
        self.cache: ScoreCache | None = None
        self.vitals = Vitals()
        self.model: ServedModel | None = None
        self.first_stage: ServedModel | None = None
        self.failure: TamisError | None = None
        self.is_draining = False
        metrics.state.watch_life(
            is_ready=lambda: self.state == "ready", is_stalled=lambda: self.vitals.is_stalled
        )

    @property
    def state(self) -> State:
        """Where it stands; a scheduler that has died is a failure, a worker's end is not."""
        if self._service is None:
            return "failed" if self.failure else "loading"
        if not self._service.statistics().running:
            return "failed"
        if self.is_draining:
            return "draining"
        return "down" if self.vitals.is_down else "ready"

    @property
    def is_loading(self) -> bool:
        """Whether a thread is still loading a model, perhaps for a server that has ended."""
        return not all(load.done() for load in self._loads)

    @property
    def degraded(self) -> str | None:
        """In which way it does less than it could; None while all is well, or not yet ready."""
        return None if self._service is None else self._service.statistics().degraded

    def drain(self) -> bool:
        """Be unready from now on; requests are still answered. Returns whether any may come."""
        self.is_draining = True
        return self._service is not None

    @property
    def service(self) -> RerankService:
        """The service, once the model is ready.

        Raises:
            NotReadyError: it is not, or not any more.
        """
        if self.failure is not None:
            raise NotReadyError("the model could not be loaded; the server is going down")
        if self._service is None:
            reason = self.vitals.reason
            because = f" ({reason})" if reason else ""
            raise NotReadyError(f"the model is not ready yet{because}; try again soon")
        return self._service

    def begin(self) -> None:
        """Start loading before there is an event loop; `run` goes on from there."""
        if not self._settings.scheduler.workers:
            self._begun = self._load_beside(self._settings.model)

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
            await self._close()

    async def _close(self) -> None:
        for pool in self._pools:  # first: a batch that waits for a worker waits no more
            await asyncio.to_thread(pool.close)
        if self.vitals.is_stalled:
            logger.error("the model hangs and is left behind")
            return
        if self._service is not None:
            await self._service.close()
        if self.cache is not None:
            await self.cache.close()
        for model in (self.first_stage, self.model):
            if model is not None:
                model.close()

    async def _start(self) -> None:
        try:
            begun = self._begun
            self.model = await (
                self._open(self._settings.model, self._settings.scheduler.workers)
                if begun is None
                else self._in_process(begun)
            )
            if self._settings.cascade.keep:
                first = first_stage_settings(self._settings.cascade.model, self._settings.model)
                n_workers = min(1, self._settings.scheduler.workers)
                self.first_stage = await self._open(first, n_workers)
            self._service = self._serve(self.model)
        except TamisError as error:
            self._fail(error)
        except Exception as error:  # nobody awaits this task: it would stay "loading" for ever
            logger.exception("the model could not be loaded")
            self._fail(TamisError(f"loading the model failed ({type(error).__name__}: {error})"))

    async def _open(self, settings: ModelSettings, n_workers: int) -> ServedModel:
        if not n_workers:
            return await self._in_process(self._load_beside(settings))
        pool = self._make_pool(settings, n_workers)
        self.vitals.watch(pool.backends)
        self._metrics.state.watch_workers(lambda: sum(pool.n_ready for pool in self._pools))
        await asyncio.wrap_future(_in_thread(pool.open))
        return WorkersModel(
            pool, lambda spare, read_tokenizer: self._make_pool(spare, 1, read_tokenizer)
        )

    async def _in_process(self, load: Future[LoadedModel]) -> ServedModel:
        return LocalModel(await asyncio.wrap_future(load), self._watched, self._load)

    def _load_beside(self, settings: ModelSettings) -> Future[LoadedModel]:
        """Load in a thread that the end of the server does not wait for."""
        load = _in_thread(lambda: self._load(settings))
        self._loads.append(load)
        return load

    def _make_pool(
        self,
        settings: ModelSettings,
        n_workers: int,
        read_tokenizer: TokenizerLoader = load_tokenizer,
    ) -> WorkerPool:
        """A worker pool, which is closed with the rest."""
        options = self._settings.scheduler
        pool = WorkerPool(
            settings,
            n_workers,
            timeouts=WorkerTimeouts(stall_seconds=options.stall_seconds),
            command=self._command,
            on_restart=self._metrics.state.observe_worker_restart,
            read_tokenizer=read_tokenizer,
        )
        self._pools.append(pool)
        return pool

    def _fail(self, error: TamisError) -> None:
        self.failure = error
        if self._on_failure is not None:
            self._on_failure()

    def _serve(self, model: ServedModel) -> RerankService:
        self._metrics.state.describe_model(model.facts)
        self.cache = make_cache(self._settings.cache, self._metrics.cache)
        max_queued_tokens = self._settings.scheduler.max_queued_tokens
        encoding = EncodingThread(max_queued_tokens * CHARACTERS_PER_TOKEN)
        read_through = ReadThrough(self.cache, self.timing)
        service = RerankService(
            self._stage(model, self._settings.model, encoding, read_through),
            encoding,
            timeout_seconds=self._settings.server.timeout_seconds,
            shared_cache=self._settings.cache.shared,
            first_stage=self._serve_first_stage(encoding, read_through),
            timing=self.timing,
        )
        self._metrics.state.watch_queue(service.statistics, max_tokens=max_queued_tokens)
        return service

    def _serve_first_stage(
        self, encoding: EncodingThread, read_through: ReadThrough
    ) -> FirstStage | None:
        first, options = self.first_stage, self._settings.cascade
        if first is None:
            return None
        settings = first_stage_settings(options.model, self._settings.model)
        stage = self._stage(first, settings, encoding, read_through)
        return FirstStage(stage, Cascade(options.keep, options.margin))

    def _stage(
        self,
        model: ServedModel,
        settings: ModelSettings,
        encoding: EncodingThread,
        read_through: ReadThrough,
    ) -> ModelStage:
        identity = model.facts.identity
        return ModelStage(
            model.facts.name,
            model.tokenizer,
            self._schedule(model, settings),
            encoding,
            read_through,
            PairKeys(secret_of(self._settings.cache), identity),
            is_as_keyed=lambda: all(one.identity == identity for one in model.facts_now()),
            max_length=model.facts.max_length,
            max_request_tokens=self._settings.limits.max_request_tokens,
            timing=self.timing,
        )

    def _schedule(self, model: ServedModel, settings: ModelSettings) -> Scheduler:
        options = self._settings.scheduler
        (known_good,) = model.tokenizer.encode(WARM_UP_QUERY, WARM_UP_DOCUMENTS[:1])
        stand_in, in_float32 = self._spares(model, settings)
        runners = [
            BatchRunner(
                backend,
                max_batch_tokens=options.max_batch_tokens or model.facts.max_batch_tokens,
                stand_in=stand_in,
                in_float32=in_float32,
                observer=self._metrics.batches,
                known_good=known_good,
            )
            for backend in model.backends
        ]
        scheduler = Scheduler(
            *runners,
            max_queued_tokens=options.max_queued_tokens,
            turn=self._turn if model.in_process else None,
            timing=self.timing,
        )
        self._metrics.devices.watch(_device_of(model, runners))
        scheduler.start()
        return scheduler

    def _watched(self, model: LoadedModel) -> WatchedBackend:
        detector = StallDetector(self._settings.scheduler.stall_seconds, model.seconds_per_token)
        backend = WatchedBackend(model.backend, detector)
        self.vitals.watch([backend])
        return backend

    def _spares(
        self, model: ServedModel, settings: ModelSettings
    ) -> tuple[MakeBackend | None, MakeBackend | None]:
        """The same model on the CPU, in float32, loaded when it is wanted first.

        Returns:
            What takes over when the model's device fails (a worker has none: it is started again,
            which helps a device more often), and what computes where less precision gives no
            number.
        """
        on_cpu = settings.model_copy(
            update={"device": "cpu", "dtype": "float32", "max_length": model.facts.max_length}
        )
        spare, facts = model.spare(on_cpu), model.facts
        stand_in = spare if model.in_process and facts.device != "cpu" else None
        return stand_in, None if facts.dtype == "float32" else spare


def _device_of(model: ServedModel, runners: Sequence[BatchRunner]) -> Device:
    """What the metrics look at."""
    facts = model.facts
    return Device(facts.name, facts.device, hardware_name(facts.device), runners, model.workers)


def _in_thread(make: Callable[[], Made]) -> Future[Made]:
    """Call it in a daemon thread, unlike a pool's: the process can end before it does."""
    made: Future[Made] = Future()
    made.set_running_or_notify_cancel()

    def call() -> None:
        try:
            made.set_result(make())
        except BaseException as error:  # noqa: BLE001 - raised again by who awaits the future
            made.set_exception(error)

    Thread(target=call, name="tamis-loading", daemon=True).start()
    return made
