"""What a body's headers say that it is: JSON in UTF-8, or not."""

import re

from starlette.datastructures import Headers

from tamis.errors import UnsupportedMediaTypeError

LONGEST_BYTES = 256
"""Of a `Content-Type`; no real one comes near."""

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_JSON = re.compile(rf"application/(?:json|{_NAME}\+json)[ \t]*")
_PARAMETER = re.compile(
    rf";[ \t]*(?:(?P<name>{_NAME})=(?:(?P<bare>{_NAME})|\"(?P<quoted>[^\"\\]*)\"))?[ \t]*"
)


def require_json(headers: Headers) -> None:
    """Refuse a body that is said to be something else; saying nothing is as good as saying JSON.

    Raises:
        UnsupportedMediaTypeError: it is said to be no JSON, or not in UTF-8, or said twice.
    """
    given = headers.getlist("content-type")
    if len(given) > 1 or (given and not is_json_in_utf8(given[0])):
        raise UnsupportedMediaTypeError(
            "the body must be JSON in UTF-8; send `Content-Type: application/json`, or none"
        )


def is_json_in_utf8(value: str) -> bool:
    """Whether a `Content-Type` (RFC 9110, 8.3) says so; one that does not parse says nothing."""
    if len(value) > LONGEST_BYTES:
        return False
    text = value.strip(" \t").lower()
    kind = _JSON.match(text)
    at = kind.end() if kind else -1
    while 0 <= at < len(text):
        found = _PARAMETER.match(text, at)
        if found is None or not _is_harmless(found):
            return False
        at = found.end()
    return kind is not None


def _is_harmless(parameter: re.Match[str]) -> bool:
    """Any parameter but a character set other than UTF-8, or one that is written in parts."""
    name = parameter["name"] or ""
    if name != "charset":
        return not name.startswith("charset*")
    return (parameter["bare"] or parameter["quoted"]) == "utf-8"
