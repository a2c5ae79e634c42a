import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tamis.cascade import Cascade
from tamis.errors import (
    InferenceError,
    InvalidFieldError,
    QueueFullError,
    ShuttingDownError,
    TextTooLongError,
)
from tamis.ranking import rank
from tamis.scheduler.scheduler import Scheduler
from tamis.service import FirstStage, RerankService
from tamis.testing import FakeBackend, WordTokenizer, fake_logit
from tamis.types import Document, RerankRequest

QUERY = "what is a panda"
DOCUMENTS: tuple[Document, ...] = ("hi", {"id": 7, "text": "a bear"}, "The giant panda", "")


@pytest.fixture
def backend() -> FakeBackend:
    """What the service scores with."""
    return FakeBackend()


@pytest.fixture
async def service(backend: FakeBackend) -> AsyncIterator[RerankService]:
    """A running service that reads 16 tokens a pair."""
    scheduler = Scheduler(backend, max_batch_tokens=64, max_queued_tokens=10_000)
    scheduler.start()
    service = RerankService(
        "word-model", WordTokenizer(max_length=16), scheduler, max_waiting_characters=10_000
    )
    yield service
    await service.close()


def logits_alone(*texts: str) -> list[float]:
    """The logits of texts without a service."""
    pairs = WordTokenizer(max_length=16).encode(QUERY, texts)
    return [fake_logit(pair) for pair in pairs]


async def test_documents_come_back_in_order_with_index_logit_and_score(
    service: RerankService,
) -> None:
    result = await service.rerank(RerankRequest(QUERY, DOCUMENTS))

    logits = np.array(logits_alone("hi", "a bear", "The giant panda", ""), dtype=np.float32)
    assert result.model == "word-model"
    assert [(r.index, r.logit, r.score) for r in result.results] == [
        (place.index, place.logit, place.score) for place in rank(logits)
    ]


async def test_documents_come_back_as_they_were_given(service: RerankService) -> None:
    result = await service.rerank(RerankRequest(QUERY, DOCUMENTS))

    assert all(r.document is DOCUMENTS[r.index] for r in result.results)


async def test_top_n_and_threshold_bound_the_answer_and_not_the_work(
    service: RerankService, backend: FakeBackend
) -> None:
    everything = await service.rerank(RerankRequest(QUERY, DOCUMENTS))
    second_best = everything.results[1].score

    best = await service.rerank(RerankRequest(QUERY, DOCUMENTS, top_n=1))
    good = await service.rerank(RerankRequest(QUERY, DOCUMENTS, threshold=second_best))

    assert best.results == everything.results[:1]
    assert good.results == everything.results[:2]
    assert best.usage.n_pairs == len(DOCUMENTS)


async def test_usage_counts_pairs_tokens_and_cut_texts(service: RerankService) -> None:
    result = await service.rerank(RerankRequest("q", ("one", "two " * 50)))

    assert (result.usage.n_pairs, result.usage.n_tokens, result.usage.n_truncated) == (2, 22, 1)


async def test_no_documents_give_an_empty_answer(service: RerankService) -> None:
    result = await service.rerank(RerankRequest(QUERY, ()))

    assert result.results == ()
    assert result.usage.n_tokens == 0


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (RerankRequest("q", ("w " * 50,), truncate=False), TextTooLongError),
        (RerankRequest("q", ("w", {"title": "t"})), InvalidFieldError),
    ],
)
async def test_a_request_at_fault_is_refused_before_the_model(
    service: RerankService, backend: FakeBackend, request_: RerankRequest, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await service.rerank(request_)

    assert backend.batches == []


async def test_the_truncation_side_reaches_the_tokenizer(service: RerankService) -> None:
    document = "first " + "middle " * 20 + "last"

    left = await service.rerank(RerankRequest(QUERY, (document,), truncation_side="left"))

    assert [left.results[0].logit] == pytest.approx(logits_alone("middle " * 7 + "last"))


async def test_concurrent_requests_get_what_they_get_alone(service: RerankService) -> None:
    requests = [RerankRequest(QUERY, tuple(f"w{n} {m}" for m in range(n))) for n in range(40)]

    together = await asyncio.gather(*map(service.rerank, requests))

    assert list(together) == [await service.rerank(request) for request in requests]


async def test_statistics_are_the_schedulers(service: RerankService) -> None:
    assert service.statistics().running
    await service.close()
    assert not service.statistics().running


@pytest.mark.parametrize("documents", [DOCUMENTS, ()])
async def test_a_closed_service_says_that_it_is_shutting_down(
    service: RerankService, documents: tuple[Document, ...]
) -> None:
    await service.close()

    with pytest.raises(ShuttingDownError):
        await service.rerank(RerankRequest(QUERY, documents))


async def test_closing_answers_requests_that_are_still_being_tokenized(
    service: RerankService,
) -> None:
    waiting = [asyncio.create_task(service.rerank(RerankRequest(QUERY, DOCUMENTS)))]
    await asyncio.sleep(0)

    await service.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(answers[0], ShuttingDownError)


async def test_texts_that_wait_for_the_tokenizer_are_bounded(service: RerankService) -> None:
    large = RerankRequest(QUERY, ("x" * 15_000,))

    first, second = await asyncio.gather(
        service.rerank(large), service.rerank(large), return_exceptions=True
    )
    third = await service.rerank(large)

    assert not isinstance(first, BaseException)
    assert isinstance(second, QueueFullError)
    assert third == first


async def cascading(first: FakeBackend, second: FakeBackend, keep: int | Cascade) -> RerankService:
    """A running cascade of two doubles."""
    schedulers = [
        Scheduler(backend, max_batch_tokens=64, max_queued_tokens=10_000)
        for backend in (first, second)
    ]
    for scheduler in schedulers:
        scheduler.start()
    cascade = Cascade(keep) if isinstance(keep, int) else keep
    return RerankService(
        "dear",
        WordTokenizer(max_length=16),
        schedulers[1],
        max_waiting_characters=10_000,
        first_stage=FirstStage("cheap", WordTokenizer(max_length=14), schedulers[0], cascade),
    )


async def test_in_a_cascade_the_second_stage_reads_the_best_and_each_result_says_who_scored_it(
    backend: FakeBackend,
) -> None:
    first = FakeBackend()
    service = await cascading(first, backend, keep=2)

    result = await service.rerank(RerankRequest(QUERY, DOCUMENTS))
    await service.close()

    assert [r.scored_by for r in result.results] == ["dear", "dear", "cheap", "cheap"]
    assert sum(map(len, first.batches)) == 4
    assert sum(map(len, backend.batches)) == 2
    read = [pair for batch in first.batches + backend.batches for pair in batch]
    assert result.usage.n_tokens == sum(pair.n_tokens for pair in read)
    assert result.usage.n_pairs == 4


@pytest.mark.parametrize("keep", [4, 99])
async def test_a_cascade_does_not_ask_the_first_stage_where_all_are_kept(
    backend: FakeBackend, keep: int
) -> None:
    first = FakeBackend()
    service = await cascading(first, backend, keep)

    result = await service.rerank(RerankRequest(QUERY, DOCUMENTS))
    await service.close()

    assert first.batches == []
    assert {r.scored_by for r in result.results} == {"dear"}


async def test_a_first_stage_that_fails_fails_the_request(backend: FakeBackend) -> None:
    first = FakeBackend()
    first.close()
    service = await cascading(first, backend, keep=1)

    with pytest.raises(InferenceError):
        await service.rerank(RerankRequest(QUERY, DOCUMENTS))
    await service.close()

    assert backend.batches == []


async def test_a_cascade_that_is_closed_has_no_stage_running(backend: FakeBackend) -> None:
    service = await cascading(FakeBackend(), backend, keep=1)
    assert service.statistics().running

    await service.close()

    assert not service.statistics().running


async def test_a_margin_lets_the_second_stage_read_more(backend: FakeBackend) -> None:
    service = await cascading(FakeBackend(), backend, Cascade(1, margin=100))

    result = await service.rerank(RerankRequest(QUERY, DOCUMENTS))
    await service.close()

    assert {r.scored_by for r in result.results} == {"dear"}


@pytest.mark.parametrize("stage", [0, 1], ids=["first", "second"])
async def test_a_caller_who_leaves_while_a_stage_computes_leaves_nothing_behind(
    stage: int,
) -> None:
    came, opened = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        came.set()
        assert opened.wait(30)

    backends = [FakeBackend(hold if number == stage else None) for number in range(2)]
    service = await cascading(backends[0], backends[1], keep=2)
    leaving = asyncio.create_task(service.rerank(RerankRequest(QUERY, DOCUMENTS)))
    assert await asyncio.to_thread(came.wait, 30)

    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    assert leaving.cancelled()
    assert_nothing_waits(service)
    opened.set()
    assert len((await service.rerank(RerankRequest("other", DOCUMENTS))).results) == 4
    assert_nothing_waits(service)
    await service.close()
    assert sum(map(len, backends[1].batches)) == 2 + 2 * stage


class Leaving(Cascade):
    """Its first caller is cancelled between the stages."""

    def select(self, first: NDArray[np.float32]) -> NDArray[np.intp]:
        task = asyncio.current_task()
        assert task is not None
        if task.get_name() == "leaving":
            task.cancel()
        return super().select(first)


async def test_a_caller_who_leaves_between_the_stages_leaves_nothing_behind(
    backend: FakeBackend,
) -> None:
    service = await cascading(FakeBackend(), backend, Leaving(2))
    request = RerankRequest(QUERY, DOCUMENTS)

    leaving = asyncio.create_task(service.rerank(request), name="leaving")
    await asyncio.gather(leaving, return_exceptions=True)

    assert leaving.cancelled()
    assert_nothing_waits(service)
    assert len((await service.rerank(request)).results) == 4
    assert_nothing_waits(service)
    await service.close()


def assert_nothing_waits(service: RerankService) -> None:
    statistics = service.statistics()
    assert (statistics.n_queued_jobs, statistics.n_tokens) == (0, 0)
    assert statistics.running
