"""Everything below the server, put together as the settings say and taken apart again."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from threading import Lock, Thread
from typing import TYPE_CHECKING, TypeVar

from tamis.assembly.served import LocalModel, ModelLoader, ServedModel, WorkersModel
from tamis.cache.configured import make_cache, secret_of
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
from tamis.observability.devices import Device
from tamis.observability.metrics import Metrics
from tamis.scheduler.execution import BatchRunner, MakeBackend
from tamis.scheduler.scheduler import Scheduler
from tamis.service import FirstStage, RerankService
from tamis.settings import ModelSettings, Settings, first_stage_settings
from tamis.stage import ModelStage
from tamis.timing import PhaseObserver
from tamis.workers.pool import TokenizerLoader, WorkerPool
from tamis.workers.process import WORKER_COMMAND
from tamis.workers.stall_detector import StallDetector, WatchedBackend
from tamis.workers.supervisor import WorkerTimeouts
from tamis.workers.vitals import Vitals

if TYPE_CHECKING:  # imported while models load
    from tamis.relevance.watch import RelevanceWatch

logger = logging.getLogger(__name__)

CHARACTERS_PER_TOKEN = 4
"""Of English text in XLM-R's vocabulary (the embedded model's card)."""

Made = TypeVar("Made")


@dataclass(slots=True)
class HostedModel:
    """A model of this server, from the start on.

    Attributes:
        settings: Which model, and how it runs.
        loading: Its loading, where that began before there was an event loop.
        model: The model, once it is loaded.
        first_stage: The first-stage model of its cascade, once that is loaded.
        service: What answers requests, once both are loaded.
    """

    settings: ModelSettings
    loading: Future[LoadedModel] | None = None
    model: ServedModel | None = None
    first_stage: ServedModel | None = None
    service: RerankService | None = None


class Assembly:
    """Makes services of settings, and holds what they are made of.

    Args:
        settings: All of them.
        metrics: What observes the parts.
        load: Loads a model, in a thread.
        command: The workers' program, where the settings ask for workers.
        timing: Told how long each phase of a request takes; the metrics are if None.

    Attributes:
        timing: As given.
        models: The models of this server, by name. Today there is one.
        vitals: Whether what runs the models can run them.
        cache: The scores of all models; None until the first model is loaded.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        load: ModelLoader = load_model,
        command: Sequence[str] = WORKER_COMMAND,
        timing: PhaseObserver | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._load = load
        self._command = command
        self._pools: list[WorkerPool] = []
        self._turn = Lock()
        self._loads: list[Future[LoadedModel]] = []
        self.timing = timing or metrics.phases
        self.models = {settings.model.name: HostedModel(settings.model)}
        self.vitals = Vitals()
        self.cache: ScoreCache | None = None

    @property
    def default(self) -> HostedModel:
        """The model of requests that name none."""
        return next(iter(self.models.values()))

    @cached_property
    def watch(self) -> "RelevanceWatch":
        """What watches the rankings; imported and made when first asked for, while models load.

        Raises:
            SettingsError: the baseline cannot be read, or the request log cannot be written.
        """
        from tamis.assembly.watching import make_watch

        return make_watch(self._settings, self._metrics.registry, self._metrics.faults)

    @property
    def is_loading(self) -> bool:
        """Whether a thread is still loading a model, perhaps for a server that has ended."""
        return not all(load.done() for load in self._loads)

    def begin(self) -> None:
        """Start loading before there is an event loop; `load` goes on from there."""
        if not self._settings.scheduler.workers:
            for hosted in self.models.values():
                hosted.loading = self._load_in_thread(hosted.settings)

    async def load(self) -> None:
        """Load each model and make its service.

        Raises:
            TamisError: a model cannot be loaded.
        """
        for hosted in self.models.values():
            hosted.model = await (
                self._open(hosted.settings, self._settings.scheduler.workers)
                if hosted.loading is None
                else self._in_process(hosted.loading)
            )
            if self._settings.cascade.keep:
                first = first_stage_settings(self._settings.cascade.model, hosted.settings)
                n_workers = min(1, self._settings.scheduler.workers)
                hosted.first_stage = await self._open(first, n_workers)
            hosted.service = self._serve(hosted, hosted.model)

    async def close(self) -> None:
        """Close everything. A load that is still running, perhaps a download, is left behind."""
        try:
            await self._close_models()
        finally:
            await asyncio.to_thread(self.watch.close)

    async def _close_models(self) -> None:
        for pool in self._pools:  # first: a batch that waits for a worker waits no more
            await asyncio.to_thread(pool.close)
        if self.vitals.is_stalled:
            logger.error("the model hangs; shutdown continues without it")
            return
        for hosted in self.models.values():
            if hosted.service is not None:
                await hosted.service.close()
        if self.cache is not None:
            await self.cache.close()
        for hosted in self.models.values():
            for model in (hosted.first_stage, hosted.model):
                if model is not None:
                    model.close()

    async def _open(self, settings: ModelSettings, n_workers: int) -> ServedModel:
        if not n_workers:
            return await self._in_process(self._load_in_thread(settings))
        pool = self._make_pool(settings, n_workers)
        self.vitals.watch(pool.backends)
        self._metrics.state.watch_workers(lambda: sum(pool.n_ready for pool in self._pools))
        await asyncio.wrap_future(_in_thread(pool.open))
        return WorkersModel(
            pool, lambda spare, read_tokenizer: self._make_pool(spare, 1, read_tokenizer)
        )

    async def _in_process(self, load: Future[LoadedModel]) -> ServedModel:
        return LocalModel(await asyncio.wrap_future(load), self._watched, self._load)

    def _load_in_thread(self, settings: ModelSettings) -> Future[LoadedModel]:
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

    def _serve(self, hosted: HostedModel, model: ServedModel) -> RerankService:
        self._metrics.state.describe_model(model.facts)
        if self.cache is None:
            self.cache = make_cache(self._settings.cache, self._metrics.cache)
        max_queued_tokens = self._settings.scheduler.max_queued_tokens
        encoding = EncodingThread(max_queued_tokens * CHARACTERS_PER_TOKEN)
        read_through = ReadThrough(self.cache, self.timing)
        service = RerankService(
            self._stage(model, hosted.settings, encoding, read_through),
            encoding,
            timeout_seconds=self._settings.server.timeout_seconds,
            shared_cache=self._settings.cache.shared,
            first_stage=self._first_stage(hosted, encoding, read_through),
            timing=self.timing,
        )
        self._metrics.state.watch_queue(service.statistics, max_tokens=max_queued_tokens)
        return service

    def _first_stage(
        self, hosted: HostedModel, encoding: EncodingThread, read_through: ReadThrough
    ) -> FirstStage | None:
        options = self._settings.cascade
        if hosted.first_stage is None:
            return None
        settings = first_stage_settings(options.model, hosted.settings)
        stage = self._stage(hosted.first_stage, settings, encoding, read_through)
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
