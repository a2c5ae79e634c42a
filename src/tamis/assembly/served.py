"""A model as the server has it computed: in its own process, or by workers."""

from collections.abc import Callable, Sequence
from typing import Protocol

from tamis.engine.backend import Backend
from tamis.engine.facts import ModelFacts
from tamis.engine.loading import LoadedModel
from tamis.engine.tokenization import PairTokenizer
from tamis.errors import RuntimeUnavailableError
from tamis.observability.devices import Worker
from tamis.scheduler.execution import MakeBackend, Spare
from tamis.settings import ModelSettings
from tamis.workers.pool import TokenizerLoader, WorkerPool

ModelLoader = Callable[[ModelSettings], LoadedModel]
Watch = Callable[[LoadedModel], Backend]
MakePool = Callable[[ModelSettings, TokenizerLoader], WorkerPool]


class ServedModel(Protocol):
    """A model that is ready to serve, wherever it computes."""

    @property
    def facts(self) -> ModelFacts:
        """What it is, and where and how it computes."""
        ...

    @property
    def tokenizer(self) -> PairTokenizer:
        """Its tokenizer, in this process."""
        ...

    @property
    def backends(self) -> Sequence[Backend]:
        """What computes it, each one batch at a time."""
        ...

    @property
    def workers(self) -> Sequence[Worker]:
        """The processes that compute it; none where this one does."""
        ...

    @property
    def in_process(self) -> bool:
        """Whether this process computes it: its models take turns, and nothing restarts them."""
        ...

    def facts_now(self) -> Sequence[ModelFacts]:
        """What each of its backends that has been up said of itself last."""
        ...

    def spare(self, settings: ModelSettings) -> MakeBackend:
        """What loads it a second time, with other settings, when that is wanted first."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class LocalModel:
    """A model in this process.

    Args:
        model: The model.
        watch: Makes a backend that notices when a model hangs.
        load: Loads a spare.
    """

    in_process = True
    workers: Sequence[Worker] = ()

    def __init__(self, model: LoadedModel, watch: Watch, load: ModelLoader) -> None:
        self.facts = model.facts
        self.tokenizer = model.tokenizer
        self.backend = model.backend
        self.backends: Sequence[Backend] = (watch(model),)
        self._watch = watch
        self._load = load

    def facts_now(self) -> Sequence[ModelFacts]:
        """Always the same."""
        return (self.facts,)

    def spare(self, settings: ModelSettings) -> MakeBackend:
        """Each call loads one."""
        return lambda: self._watch(self._load_spare(settings))

    def close(self) -> None:
        """Give its memory back."""
        self.backend.close()

    def _load_spare(self, settings: ModelSettings) -> LoadedModel:
        try:
            return self._load(settings)
        except RuntimeUnavailableError:  # a folder that was converted to less has no float32
            return self._load(settings.model_copy(update={"dtype": "auto"}))


class WorkersModel:
    """A model in workers.

    Args:
        pool: The workers, which are up.
        make_pool: Makes a pool of one more worker, for a spare.
    """

    in_process = False

    def __init__(self, pool: WorkerPool, make_pool: MakePool) -> None:
        self.tokenizer = pool.tokenizer
        self.backends = pool.backends
        self.workers = [backend.supervisor for backend in pool.backends]
        self._pool = pool
        self._make_pool = make_pool

    @property
    def facts(self) -> ModelFacts:
        """Those of the first worker."""
        return self._pool.facts

    def facts_now(self) -> Sequence[ModelFacts]:
        """A worker that was restarted may have found other files."""
        return [worker.ready.facts for worker in self.workers if worker.ready is not None]

    def spare(self, settings: ModelSettings) -> MakeBackend:
        """All calls get the same one."""
        return Spare(lambda: self._open_spare(settings)).open

    def close(self) -> None:
        """End the workers, unless that was done before."""
        self._pool.close()

    def _open_spare(self, settings: ModelSettings) -> Backend:
        spare = self._make_pool(settings, lambda _settings, _folder: self.tokenizer)
        spare.open()
        return spare.backends[0]
