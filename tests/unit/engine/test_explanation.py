from pathlib import Path

import pytest

from tamis.engine.explanation import explain_pair
from tamis.engine.loading import LoadedModel, load_model
from tamis.settings import ModelSettings
from tamis.types import TokenMatch

QUERY, DOCUMENT = "what is a panda", "the giant  panda is a bear"


@pytest.fixture
def model(tiny_maxsim: Path, cache_dir: Path) -> LoadedModel:
    """A tiny late-interaction model."""
    return load_model(ModelSettings(name=str(tiny_maxsim), cache_dir=cache_dir, max_length=64))


def explained(model: LoadedModel, query: str, document: str) -> tuple[TokenMatch, ...] | None:
    """The matches of one pair."""
    return explain_pair(model, query, document, model.tokenizer.encode(query, [document])[0])


def test_each_query_token_has_one_match_in_the_querys_order(model: LoadedModel) -> None:
    matches = explained(model, QUERY, DOCUMENT)

    assert matches is not None
    assert [match.query_token.strip() for match in matches] == QUERY.split()
    assert sum(match.share for match in matches) == pytest.approx(1, abs=1e-5)
    assert all(-1.0001 <= match.similarity <= 1.0001 for match in matches)


def test_a_match_says_where_its_token_stands_in_the_document(model: LoadedModel) -> None:
    matches = explained(model, QUERY, DOCUMENT) or ()

    assert matches
    for match in matches:
        assert DOCUMENT[slice(*match.document_span)] == match.document_token
        assert match.document_token.strip() in DOCUMENT.split()


def test_a_document_that_was_cut_is_explained_by_what_was_kept(model: LoadedModel) -> None:
    matches = explained(model, QUERY, DOCUMENT * 200) or ()

    assert len(matches) == 4
    assert all(match.document_span[1] < 64 * 8 for match in matches)


@pytest.mark.parametrize(("query", "document"), [("", "a bear"), ("panda", ""), (" ", "\n")])
def test_texts_without_tokens_have_no_matches(
    model: LoadedModel, query: str, document: str
) -> None:
    assert explained(model, query, document) is None


def test_a_model_that_reads_both_texts_together_has_no_matches(
    tiny_model: Path, cache_dir: Path
) -> None:
    classifier = load_model(ModelSettings(name=str(tiny_model), cache_dir=cache_dir))

    assert explained(classifier, QUERY, DOCUMENT) is None
