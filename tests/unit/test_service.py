import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tamis.cascade import Cascade
from tamis.encoding import EncodingThread
from tamis.engine.pairs import EncodedPair
from tamis.errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidFieldError,
    QueueFullError,
    RequestTooLargeError,
    ShuttingDownError,
    TextTooLongError,
    UnscorableDocumentError,
)
from tamis.ranking import BLANK_LOGIT, rank
from tamis.service import FirstStage, RerankService
from tamis.testing import FakeBackend, WordTokenizer, fake_logit
from tamis.types import Document, RerankRequest
from tests.stages import stage_on

QUERY = "what is a panda"
DOCUMENTS: tuple[Document, ...] = ("hi", {"id": 7, "text": "a bear"}, "The giant panda", "far")


@pytest.fixture
def backend() -> FakeBackend:
    """What the service scores with."""
    return FakeBackend()


@pytest.fixture
async def service(backend: FakeBackend) -> AsyncIterator[RerankService]:
    """A running service that reads 16 tokens a pair."""
    service = serving(backend)
    yield service
    await service.close()


def serving(backend: FakeBackend) -> RerankService:
    """A running service on a backend."""
    encoding = EncodingThread(max_waiting_characters=10_000)
    return RerankService(stage_on(backend, encoding), encoding, timeout_seconds=60)


def logits_alone(*texts: str) -> list[float]:
    """The logits of texts without a service."""
    pairs = WordTokenizer(max_length=16).encode(QUERY, texts)
    return [fake_logit(pair) for pair in pairs]


async def test_documents_come_back_in_order_with_index_logit_and_score(
    service: RerankService,
) -> None:
    result = await service.rerank(RerankRequest(QUERY, DOCUMENTS))

    logits = np.array(logits_alone("hi", "a bear", "The giant panda", "far"), dtype=np.float32)
    assert result.model == "word-model"
    assert [(r.index, r.logit, r.score) for r in result.results] == [
        (index, logits[index], score) for index, score in rank(logits)
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
    large, other = (RerankRequest(QUERY, (letter * 15_000,)) for letter in "xy")

    first, second = await asyncio.gather(
        service.rerank(large), service.rerank(other), return_exceptions=True
    )
    third = await service.rerank(large)

    assert not isinstance(first, BaseException)
    assert isinstance(second, QueueFullError)
    assert third == first


async def cascading(first: FakeBackend, second: FakeBackend, keep: int | Cascade) -> RerankService:
    """A running cascade of two doubles."""
    encoding = EncodingThread(max_waiting_characters=10_000)
    cheap = stage_on(first, encoding, name="cheap", max_length=14)
    cascade = Cascade(keep) if isinstance(keep, int) else keep
    return RerankService(
        stage_on(second, encoding, name="dear"),
        encoding,
        timeout_seconds=60,
        first_stage=FirstStage(cheap, cascade),
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

    def select(self, first: NDArray[np.float32], texts: Sequence[str] = ()) -> NDArray[np.intp]:
        task = asyncio.current_task()
        assert task is not None
        if task.get_name() == "leaving":
            task.cancel()
        return super().select(first, texts)


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


def refuse(*texts: str) -> Callable[[Sequence[EncodedPair]], None]:
    """A `before_forward` that fails each batch in which one of these texts is."""
    bad = set(logits_alone(*texts))

    def check(pairs: Sequence[EncodedPair]) -> None:
        if any(fake_logit(pair) in bad for pair in pairs):
            raise RuntimeError

    return check


async def test_what_could_not_be_scored_does_not_count_as_kept() -> None:
    service = serving(FakeBackend(refuse("bad")))
    await service.rerank(RerankRequest(QUERY, ("good",)))

    result = await service.rerank(RerankRequest(QUERY, ("bad", "bad", "fine"), partial=True))
    await service.close()

    assert [one.index for one in result.unscored] == [0, 1]
    assert (result.usage.n_pairs, result.usage.n_cached) == (3, 0)


async def test_without_partial_one_bad_document_fails_its_request_by_its_index() -> None:
    service = serving(FakeBackend(refuse("a bear")))
    await service.rerank(RerankRequest(QUERY, ("good",)))

    with pytest.raises(UnscorableDocumentError, match="document 1 cannot be scored"):
        await service.rerank(RerankRequest(QUERY, DOCUMENTS))
    await service.close()


async def test_with_partial_the_others_are_ranked_and_the_bad_one_follows_with_its_reason() -> None:
    service = serving(FakeBackend(refuse("a bear")))
    await service.rerank(RerankRequest(QUERY, ("good",)))

    result = await service.rerank(RerankRequest(QUERY, DOCUMENTS, partial=True))
    whole = await service.rerank(RerankRequest(QUERY, ("good",), partial=True))
    await service.close()

    logits = np.array(logits_alone("hi", "The giant panda", "far"), dtype=np.float32)
    assert [r.logit for r in result.results] == sorted(logits.tolist(), reverse=True)
    assert result.degraded
    (unscored,) = result.unscored
    assert (unscored.index, unscored.code) == (1, "unscorable_document")
    assert unscored.document is DOCUMENTS[1]
    assert not whole.degraded


@pytest.mark.parametrize(("top_n", "n_scored", "n_unscored"), [(1, 1, 0), (3, 3, 0), (4, 3, 1)])
async def test_what_has_no_score_comes_last_within_top_n(
    top_n: int, n_scored: int, n_unscored: int
) -> None:
    service = serving(FakeBackend(refuse("a bear")))
    await service.rerank(RerankRequest(QUERY, ("good",)))

    result = await service.rerank(RerankRequest(QUERY, DOCUMENTS, top_n=top_n, partial=True))
    await service.close()

    assert (len(result.results), len(result.unscored)) == (n_scored, n_unscored)


async def test_a_document_that_only_the_second_stage_cannot_score_keeps_the_firsts(
    backend: FakeBackend,
) -> None:
    best = int(np.argmax(logits_alone("hi", "a bear", "The giant panda", "far")))
    text = ("hi", "a bear", "The giant panda", "far")[best]
    second = FakeBackend(refuse(text))
    service = await cascading(backend, second, keep=2)
    await service.rerank(RerankRequest(QUERY, ("one", "two")))

    with pytest.raises(UnscorableDocumentError, match=f"document {best} cannot"):
        await service.rerank(RerankRequest(QUERY, DOCUMENTS))
    result = await service.rerank(RerankRequest(QUERY, DOCUMENTS, partial=True))
    await service.close()

    assert result.degraded
    assert result.unscored == ()
    scored_by = {r.index: r.scored_by for r in result.results}
    assert sorted(scored_by.values()) == ["cheap", "cheap", "cheap", "dear"]
    assert scored_by[best] == "cheap"


@pytest.mark.parametrize("asked", [None, 30.0])
async def test_a_request_that_is_not_answered_in_time_is_told_so(asked: float | None) -> None:
    held = threading.Event()
    backend = FakeBackend(lambda _: held.wait(5))
    service = serving(backend)
    service._timeout_seconds = 0.05

    with pytest.raises(DeadlineExceededError):
        await service.rerank(RerankRequest(QUERY, DOCUMENTS, timeout_seconds=asked))
    held.set()
    await service.close()


async def test_a_request_that_cannot_be_admitted_is_never_tokenized(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serving(backend)
    asked: list[object] = []
    monkeypatch.setattr(WordTokenizer, "encode", lambda *given, **_: asked.append(given))

    with pytest.raises(RequestTooLargeError):
        await service.rerank(
            RerankRequest(QUERY, tuple(f"{n} long words " * 20 for n in range(5_000)))
        )
    await service.close()

    assert asked == []


BLANK = ("", " \n", "...", "\u200b", "| | |\n|---|---|", "___")


@pytest.mark.parametrize("keep", [None, 2, 100])
async def test_blank_documents_come_last_and_no_model_reads_them(keep: int | None) -> None:
    backend, cheap = FakeBackend(), FakeBackend()
    encoding = EncodingThread(max_waiting_characters=10_000)
    first = None if keep is None else FirstStage(stage_on(cheap, encoding), Cascade(keep))
    service = RerankService(
        stage_on(backend, encoding), encoding, timeout_seconds=60, first_stage=first
    )
    documents = (*BLANK[:3], "hi", *BLANK[3:], "a bear", "The giant panda")

    result = await service.rerank(RerankRequest(QUERY, documents))
    bounded = await service.rerank(RerankRequest(QUERY, documents, threshold=0.0))
    await service.close()

    order = [ranked.index for ranked in result.results]
    assert sorted(order[:3]) == [3, 7, 8]
    assert order[3:] == [0, 1, 2, 4, 5, 6]
    assert {ranked.score for ranked in result.results[3:]} == {0.0}
    assert {ranked.logit for ranked in result.results[3:]} == {BLANK_LOGIT}
    assert [ranked.index for ranked in bounded.results] == order[:3]
    assert result.usage.n_pairs == len(documents)
    n_read = sum(len(batch) for batch in (*backend.batches, *cheap.batches))
    assert n_read <= 2 * 3 * (1 if keep is None else 2)


async def test_only_blank_documents_cost_nothing(
    service: RerankService, backend: FakeBackend
) -> None:
    result = await service.rerank(RerankRequest(QUERY, BLANK))
    assert [ranked.index for ranked in result.results] == list(range(len(BLANK)))
    assert result.usage.n_tokens == 0
    assert backend.batches == []


async def test_a_document_that_fails_beside_a_blank_one_is_named_by_its_own_index() -> None:
    backend = FakeBackend(_fail_on_long)
    service = serving(backend)
    documents = ("", "one two three four five six seven", "hi")
    result = await service.rerank(RerankRequest(QUERY, documents, partial=True))
    await service.close()
    assert [ranked.index for ranked in result.results] == [2, 0]
    assert [one.index for one in result.unscored] == [1]


def _fail_on_long(pairs: Sequence[EncodedPair]) -> None:
    if any(pair.n_tokens > 10 for pair in pairs):
        raise InferenceError("too long for this one")
