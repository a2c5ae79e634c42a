import pytest

from tamis.errors import InvalidFieldError
from tamis.types import Document, document_text


@pytest.mark.parametrize(
    "document", ["a sieve", {"text": "a sieve"}, {"id": 7, "text": "a sieve", "url": None}]
)
def test_a_document_is_a_text_or_has_one(document: Document) -> None:
    assert document_text(document, 0) == "a sieve"


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"title": "no text"}, "document 3 has no `text`"),
        ({}, "document 3 has no `text`"),
        ({"text": 7}, "the `text` of document 3 must be a string, not a number"),
        ({"text": None}, "the `text` of document 3 must be a string, not null"),
        ({"text": True}, "the `text` of document 3 must be a string, not a boolean"),
        ({"text": ["a"]}, "the `text` of document 3 must be a string, not a list"),
        ({"text": {"text": "a"}}, "the `text` of document 3 must be a string, not an object"),
        (7, "document 3 must be a string or an object with a `text`, not a number"),
        (None, "document 3 must be a string or an object with a `text`, not null"),
        (b"a", "document 3 must be a string or an object with a `text`, not bytes"),
    ],
)
def test_a_document_without_a_text_is_refused_by_its_position(
    document: Document, sentence: str
) -> None:
    with pytest.raises(InvalidFieldError, match=f"^{sentence}$"):
        document_text(document, 3)
