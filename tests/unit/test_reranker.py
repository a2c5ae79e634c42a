from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tamis import Cascade, Reranker
from tamis.errors import (
    InvalidFieldError,
    InvalidTextError,
    MissingFieldError,
    ModelNotFoundError,
    SettingsError,
)
from tamis.scheduler.execution import BatchReport
from tamis.types import Document

QUERY = "what is a panda?"
DOCUMENTS: list[Document] = ["hi", {"id": 7, "text": "The giant panda is a bear."}, "", "hi"]


@pytest.fixture
def reranker(tiny_model: Path) -> Iterator[Reranker]:
    """The Python face of the tiny XLM-R reranker."""
    with Reranker(tiny_model, threads=1) as reranker:
        yield reranker


@pytest.fixture
def late(tiny_maxsim: Path) -> Iterator[Reranker]:
    """The Python face of the tiny late-interaction model."""
    with Reranker(str(tiny_maxsim), threads=1) as late:
        yield late


def test_documents_come_back_best_first_and_as_they_were_given(reranker: Reranker) -> None:
    ranked = reranker.rank(QUERY, DOCUMENTS)

    assert sorted(ranked, key=lambda r: (-r.logit, r.index)) == ranked
    assert {r.index for r in ranked} == {0, 1, 2, 3}
    assert all(r.document is DOCUMENTS[r.index] for r in ranked)


def test_equal_documents_keep_their_order(reranker: Reranker) -> None:
    order = [r.index for r in reranker.rank(QUERY, DOCUMENTS)]

    assert order.index(0) < order.index(3)


def test_rank_and_score_agree(reranker: Reranker) -> None:
    ranked = reranker.rank(QUERY, ["hi", "a bear", ""])
    scores = reranker.score([(QUERY, text) for text in ("hi", "a bear", "")])

    assert scores.dtype == np.float32
    for r in ranked:
        assert r.logit == pytest.approx(float(scores[r.index]), abs=1e-5)
        assert r.score == pytest.approx(1 / (1 + np.exp(-r.logit)))


def test_score_takes_any_iterable_of_different_queries(reranker: Reranker) -> None:
    pairs = [("panda", "a bear"), ("hi", ""), ("Warum ist der Himmel blau?", "Rayleigh")]

    together = reranker.score(iter(pairs))

    alone = [float(reranker.score([pair])[0]) for pair in pairs]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert reranker.score([]).shape == (0,)


def test_top_n_and_threshold_bound_what_comes_back(reranker: Reranker) -> None:
    ranked = reranker.rank(QUERY, DOCUMENTS)

    assert reranker.rank(QUERY, DOCUMENTS, top_n=2) == ranked[:2]
    good = [r for r in ranked if r.score >= ranked[1].score]
    assert reranker.rank(QUERY, DOCUMENTS, threshold=ranked[1].score) == good
    assert reranker.rank(QUERY, []) == []


def test_long_texts_are_cut_at_max_length(tiny_model: Path) -> None:
    reports: list[BatchReport] = []

    with Reranker(tiny_model, max_length=32, on_batch=reports.append) as reranker:
        reranker.rank(QUERY, ["panda " * 500, "bear"])

    assert reranker.model.max_length == 32
    assert sum(report.n_pairs for report in reports) == 2
    assert max(report.n_tokens for report in reports) <= 64


@pytest.mark.parametrize(
    ("document", "error"), [({"title": "x"}, InvalidFieldError), ("\ud800", InvalidTextError)]
)
def test_a_document_at_fault_is_named(
    reranker: Reranker, document: Document, error: type[Exception]
) -> None:
    with pytest.raises(error, match="document 1"):
        reranker.rank(QUERY, ["fine", document])


def test_late_interaction_explains_its_order(late: Reranker) -> None:
    best, second = late.rank("a panda", ["the giant panda is a bear", "water boils"], explain=True)

    for ranked in (best, second):
        assert ranked.explanation is not None
        assert [m.query_token.strip() for m in ranked.explanation] == ["a", "panda"]


def test_explanations_come_only_when_asked_for(late: Reranker, reranker: Reranker) -> None:
    assert late.rank(QUERY, ["a bear"])[0].explanation is None
    assert reranker.rank(QUERY, ["a bear"], explain=True)[0].explanation is None


def test_both_runtimes_and_a_device_by_name_give_the_same_logits(tiny_model: Path) -> None:
    pairs = [(QUERY, "hi"), (QUERY, "The giant panda is a bear.")]

    with Reranker(tiny_model, runtime="torch", device="cpu", dtype="float32") as by_torch:
        there = by_torch.score(pairs)
    with Reranker(tiny_model, runtime="ctranslate2", offline=True) as by_ctranslate2:
        here = by_ctranslate2.score(pairs)

    np.testing.assert_allclose(there, here, atol=1e-5)


def test_a_model_that_is_not_there_is_not_found() -> None:
    with pytest.raises(ModelNotFoundError):
        Reranker("./no-such-folder")


def test_an_option_out_of_its_range_is_a_settings_error(tiny_model: Path) -> None:
    with pytest.raises(SettingsError, match=r"model\.max_length"):
        Reranker(tiny_model, max_length=3)


@pytest.mark.parametrize(
    ("query", "documents", "options", "error"),
    [
        ("q", "abc", {}, InvalidFieldError),
        ("q", {"text": "one document"}, {}, InvalidFieldError),
        (None, ["a"], {}, InvalidFieldError),
        (" ", ["a"], {}, MissingFieldError),
        ("q", ["a"], {"top_n": 0}, InvalidFieldError),
        ("q", ["a"], {"top_n": -1}, InvalidFieldError),
        ("q", ["a"], {"threshold": 2.0}, InvalidFieldError),
        ("q", ["a"], {"threshold": float("nan")}, InvalidFieldError),
    ],
)
def test_what_cannot_be_meant_is_refused(
    reranker: Reranker, query: Any, documents: Any, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        reranker.rank(query, documents, **options)


def test_documents_may_come_from_a_generator(reranker: Reranker) -> None:
    ranked = reranker.rank(QUERY, (text for text in ("hi", "a bear")))

    assert {place.document for place in ranked} == {"hi", "a bear"}


@pytest.mark.parametrize("pairs", [["ab"], [("a", "b", "c")], [("a", 7)]])
def test_pairs_that_are_not_two_texts_are_refused(reranker: Reranker, pairs: Any) -> None:
    with pytest.raises(InvalidFieldError):
        reranker.score(pairs)


def test_a_model_that_is_no_name_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(SettingsError, match="a name or a folder, not NoneType"):
        Reranker(nothing)


def test_in_a_cascade_the_model_reads_the_best_of_the_first_stage(
    tiny_model: Path, tiny_maxsim: Path
) -> None:
    alone = {}
    with Reranker(tiny_model, threads=1) as one:
        alone = {r.index: r.logit for r in one.rank(QUERY, DOCUMENTS)}
    with Reranker(tiny_model, threads=1, cascade=Cascade(2), first_stage=tiny_maxsim) as both:
        ranked = both.rank(QUERY, DOCUMENTS)
        name = both.model.name

    assert [r.scored_by == name for r in ranked] == [True, True, False, False]
    assert [r.logit for r in ranked[:2]] == pytest.approx([alone[r.index] for r in ranked[:2]])
    assert sorted((r.logit for r in ranked), reverse=True) == [r.logit for r in ranked]


@pytest.mark.parametrize(
    ("cascade", "n_second"), [(Cascade(1), 1), (Cascade(1, margin=1000), 4), (Cascade(99), 4)]
)
def test_a_margin_and_a_large_number_let_the_model_read_more(
    tiny_model: Path, tiny_maxsim: Path, cascade: Cascade, n_second: int
) -> None:
    with Reranker(tiny_model, threads=1, cascade=cascade, first_stage=tiny_maxsim) as both:
        ranked = both.rank(QUERY, DOCUMENTS)

    assert sum(r.scored_by == both.model.name for r in ranked) == n_second


def test_a_first_stage_that_is_not_there_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no-stage"):
        Reranker(tiny_model, threads=1, cascade=Cascade(1), first_stage=tmp_path / "no-stage")


def test_a_number_is_no_cascade(tiny_model: Path) -> None:
    with pytest.raises(SettingsError, match=r"tamis.Cascade, not int"):
        Reranker(tiny_model, cascade=cast("Cascade", 10))
