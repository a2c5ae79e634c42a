"""Stages and services on doubles."""

from tamis.cache.pair_keys import NO_SECRET, PairKeys
from tamis.cache.read_through import ReadThrough
from tamis.cache.scores import ScoreCache
from tamis.cache.store import ByteStore, CacheObserver
from tamis.encoding import EncodingThread
from tamis.scheduler.execution import BatchRunner
from tamis.scheduler.scheduler import Scheduler
from tamis.stage import ModelStage
from tamis.testing import FakeBackend, WordTokenizer


def read_through(*stores: ByteStore, observer: CacheObserver | None = None) -> ReadThrough:
    """A cache in these stores; one that keeps nothing without any."""
    return ReadThrough(ScoreCache(stores, secret=NO_SECRET, observer=observer))


def stage_on(
    backend: FakeBackend,
    encoding: EncodingThread,
    *,
    name: str = "word-model",
    max_length: int = 16,
    cache: ReadThrough | None = None,
    max_queued_tokens: int = 10_000,
) -> ModelStage:
    """A running stage that reads so many tokens a pair; call from the event loop."""
    runner = BatchRunner(backend, max_batch_tokens=64)
    scheduler = Scheduler(runner, max_queued_tokens=max_queued_tokens)
    scheduler.start()
    return ModelStage(
        name,
        WordTokenizer(max_length=max_length),
        scheduler,
        encoding,
        cache or read_through(),
        PairKeys(NO_SECRET, (name,)),
        max_length=max_length,
    )
