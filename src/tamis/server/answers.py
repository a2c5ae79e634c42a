"""Answers in JSON."""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response


def json_answer(
    answer: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer of plain data and `msgspec` structures."""
    return Response(
        msgspec.json.encode(answer),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )
