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
from tamis.ranking import BLANK_LOGIT
from tamis.scheduler.observer import BatchReport
from tamis.types import Document

QUERY = "what is a panda?"
DOCUMENTS: list[Document] = ["hi", {"id": 7, "text": "The giant panda is a bear."}, "far", "hi"]
DISTINCT: list[Document] = [*DOCUMENTS[:3], "water boils"]


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
    ranked = reranker.rank(QUERY, ["hi", "a bear", "far"])
    scores = reranker.score([(QUERY, text) for text in ("hi", "a bear", "far")])

    assert scores.dtype == np.float32
    for r in ranked:
        assert r.logit == pytest.approx(float(scores[r.index]), abs=1e-5)
        assert r.score == pytest.approx(1 / (1 + np.exp(-r.logit)))


def test_score_takes_any_iterable_of_different_queries(reranker: Reranker) -> None:
    pairs = [("panda", "a bear"), ("hi", "far"), ("Warum ist der Himmel blau?", "Rayleigh")]

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

    assert reranker.model.facts.max_length == 32
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
        ("q", ["a", None], {}, InvalidFieldError),
        ("q", ["a", b"b"], {}, InvalidFieldError),
        ("q", [{"text": None}], {}, InvalidFieldError),
        ("q", None, {}, InvalidFieldError),
        ("q", 5, {}, InvalidFieldError),
        ("q", b"ab", {}, InvalidFieldError),
        (5, "text", {}, InvalidFieldError),
        (b"q", ["a"], {}, InvalidFieldError),
        ("q", ["a"], {"top_n": "3"}, InvalidFieldError),
        ("q", ["a"], {"top_n": True}, InvalidFieldError),
        ("q", ["a"], {"threshold": "x"}, InvalidFieldError),
        ("q", ["a"], {"explain": "no"}, InvalidFieldError),
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


@pytest.mark.parametrize(
    "pairs",
    [
        *(["ab"], [("a", "b", "c")], [("a", 7)], [("a", None)], [(5, "a")], [None], [7]),
        *([{"a": "b", "c": "d"}], [{"a", "b"}], "ab", None, 5),
    ],
)
def test_pairs_that_are_not_two_texts_are_refused(reranker: Reranker, pairs: Any) -> None:
    with pytest.raises(InvalidFieldError):
        reranker.score(pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch_tokens": "many"}, "max_batch_tokens"),
        ({"max_batch_tokens": -1}, "max_batch_tokens"),
        ({"on_batch": "print"}, "on_batch"),
        ({"threads": True}, "threads"),
        ({"revision": 5}, "revision"),
        ({"offline": "perhaps"}, "offline"),
    ],
)
def test_an_option_of_another_type_is_a_settings_error(
    tiny_model: Path, options: Any, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Reranker(tiny_model, **options)


def test_nothing_is_computed_where_something_is_wrong(tiny_model: Path) -> None:
    wrong: Any = "3"
    reports: list[BatchReport] = []
    with Reranker(tiny_model, threads=1, on_batch=reports.append) as reranker:
        with pytest.raises(InvalidFieldError):
            reranker.rank(QUERY, ["a"], top_n=wrong)
        with pytest.raises(InvalidFieldError, match="pair 1 must be"):
            reranker.score([(QUERY, "a"), wrong])
    assert reports == []


def mixed_with_copies() -> tuple[list[str], str]:
    """Texts of many lengths, and one that stands between them again and again."""
    same = "the giant panda is a bear of china"
    texts = [same]
    for number in range(60):
        texts += [f"panda {number} " + "bear " * (number % 23), same]
    return texts, same


@pytest.mark.parametrize("max_batch_tokens", [None, 64, 300])
def test_equal_texts_have_one_logit_and_keep_their_order(
    tiny_model: Path, max_batch_tokens: int | None
) -> None:
    texts, same = mixed_with_copies()
    reports: list[BatchReport] = []
    with Reranker(
        tiny_model, threads=1, max_batch_tokens=max_batch_tokens, on_batch=reports.append
    ) as reranker:
        ranked = reranker.rank(QUERY, [{"text": text} for text in texts])
        n_scored = sum(report.n_pairs for report in reports)
        scores = reranker.score([(q, text) for text in texts for q in (QUERY, "water")])
    copies = [r for r in ranked if r.document == {"text": same}]
    assert len({r.logit for r in copies}) == 1
    assert [r.index for r in copies] == sorted(r.index for r in copies)
    assert n_scored == len(set(texts))
    at = [number for number, text in enumerate(texts) if text == same]
    assert len({float(scores[2 * n]) for n in at}) == len({float(scores[2 * n + 1]) for n in at})
    assert len({float(scores[2 * n]) for n in at}) == 1


@pytest.mark.parametrize("keep", [1, 2, 30, 100])
def test_equal_texts_have_one_logit_in_a_cascade(
    tiny_model: Path, tiny_maxsim: Path, keep: int
) -> None:
    texts, same = mixed_with_copies()
    with Reranker(tiny_model, threads=1, cascade=Cascade(keep), first_stage=tiny_maxsim) as both:
        ranked = both.rank("giant panda of china", texts, explain=True)
    copies = [r for r in ranked if r.document == same]
    assert len({(r.logit, r.scored_by) for r in copies}) == 1
    assert [r.index for r in copies] == sorted(r.index for r in copies)
    assert len(ranked) == len(texts)


def test_a_text_at_fault_is_named_by_its_own_place(reranker: Reranker) -> None:
    with pytest.raises(InvalidTextError, match="document 2"):
        reranker.rank(QUERY, ["a", "a", "\ud800"])
    with pytest.raises(InvalidFieldError, match="the document of pair 1"):
        reranker.score([(QUERY, "a"), cast("tuple[str, str]", (QUERY, {"text": 5}))])


def test_a_model_that_is_no_name_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(SettingsError, match="a name or a folder, not NoneType"):
        Reranker(nothing)


def test_in_a_cascade_the_model_reads_the_best_of_the_first_stage(
    tiny_model: Path, tiny_maxsim: Path
) -> None:
    alone = {}
    with Reranker(tiny_model, threads=1) as one:
        alone = {r.index: r.logit for r in one.rank(QUERY, DISTINCT)}
    with Reranker(tiny_model, threads=1, cascade=Cascade(2), first_stage=tiny_maxsim) as both:
        ranked = both.rank(QUERY, DISTINCT)
        name = both.model.facts.name

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

    assert sum(r.scored_by == both.model.facts.name for r in ranked) == n_second


def test_a_first_stage_that_is_not_there_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no-stage"):
        Reranker(tiny_model, threads=1, cascade=Cascade(1), first_stage=tmp_path / "no-stage")


def test_a_number_is_no_cascade(tiny_model: Path) -> None:
    with pytest.raises(SettingsError, match=r"tamis.Cascade, not int"):
        Reranker(tiny_model, cascade=cast("Cascade", 10))


def test_blank_documents_come_last_with_a_score_of_0(reranker: Reranker) -> None:
    documents = ["", "...", "panda bear", "\u200b"]
    ranked = reranker.rank("what is a panda", documents, explain=True)
    assert [one.index for one in ranked] == [2, 0, 1, 3]
    assert [one.score for one in ranked[1:]] == [0.0] * 3
    assert [one.explanation for one in ranked[1:]] == [None] * 3
    kept = reranker.rank("what is a panda", documents, threshold=0.0)
    assert [one.index for one in kept] == [2]
    logits = reranker.score([("what is a panda", text) for text in documents])
    assert logits.tolist() == [BLANK_LOGIT, BLANK_LOGIT, ranked[0].logit, BLANK_LOGIT]
    assert reranker.rank("what is a panda", ["", " "])[1].index == 1
