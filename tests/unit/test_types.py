from typing import Any

import numpy as np
import pytest

from tamis.errors import InvalidFieldError
from tamis.types import Document, RerankRequest, document_text


@pytest.mark.parametrize(
    "document", ["a sieve", {"text": "a sieve"}, {"id": 7, "text": "a sieve", "url": None}]
)
def test_a_document_is_a_text_or_has_one(document: Document) -> None:
    assert document_text(document, 0) == "a sieve"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"title": "no text"}, "document 3 has no `text`"),
        ({"text": 7}, "the `text` of document 3 must be a string, not a number"),
        ({"text": None}, "the `text` of document 3 must be a string, not null"),
        ({"text": {"text": "a"}}, "the `text` of document 3 must be a string, not an object"),
        (7, "document 3 must be a string or an object .*, not a number"),
        (True, "document 3 must be .*, not a boolean"),
        (None, "document 3 must be .*, not null"),
        (["a"], "document 3 must be .*, not a list"),
        (b"a", "document 3 must be .*, not bytes"),
    ],
)
def test_a_document_without_a_text_is_refused_by_its_position(document: Any, message: str) -> None:
    with pytest.raises(InvalidFieldError, match=message):
        document_text(document, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_n": "3"}, "`top_n` must be a whole number, not '3'"),
        ({"top_n": 2.0}, "`top_n` must be a whole number, not 2.0"),
        ({"top_n": True}, "`top_n` must be a whole number, not True"),
        ({"threshold": "x"}, "`threshold` must be a number, not 'x'"),
        ({"threshold": False}, "`threshold` must be a number, not False"),
        ({"threshold": [0.5]}, "`threshold` must be a number, not a list"),
        ({"priority": "0"}, "`priority` must be a whole number, not '0'"),
        ({"timeout_seconds": "1"}, "`timeout_seconds` must be a number, not '1'"),
    ],
)
def test_an_option_of_another_type_is_refused(options: Any, message: str) -> None:
    with pytest.raises(InvalidFieldError, match=message):
        RerankRequest("q", ("a",), **options)


def test_numpys_numbers_are_numbers() -> None:
    asked = RerankRequest("q", ("a",), top_n=np.int64(3), threshold=np.float32(0.5))  # type: ignore[arg-type]  # as they come out of arrays
    assert (asked.top_n, asked.threshold) == (3, 0.5)
