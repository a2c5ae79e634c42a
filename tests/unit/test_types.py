import pytest

from tamis.errors import InvalidFieldError
from tamis.types import Document, document_text


@pytest.mark.parametrize(
    "document", ["a sieve", {"text": "a sieve"}, {"id": 7, "text": "a sieve", "url": None}]
)
def test_a_document_is_a_text_or_has_one(document: Document) -> None:
    assert document_text(document, 0) == "a sieve"


@pytest.mark.parametrize(
    ("document", "came"),
    [({"title": "no text"}, "dict"), ({"text": 7}, "int"), (7, "int"), ({"text": None}, "dict")],
)
def test_a_document_without_a_text_is_refused_by_its_position(
    document: Document, came: str
) -> None:
    with pytest.raises(InvalidFieldError, match=rf"document 3 must be .*, not {came}$"):
        document_text(document, 3)
