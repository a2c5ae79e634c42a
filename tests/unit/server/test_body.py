import threading

import pytest

from tamis.server import body
from tamis.server.body import PARSED_AT_ONCE_BYTES, parse_body


@pytest.mark.parametrize("n_more", [0, 1])
async def test_a_large_body_is_parsed_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, n_more: int
) -> None:
    parsing: list[int] = []

    def parse(content: bytes) -> dict[str, object]:
        parsing.append(threading.get_ident())
        return {"bytes": len(content)}

    monkeypatch.setattr(body, "parse_object", parse)
    n_bytes = PARSED_AT_ONCE_BYTES + n_more

    parsed = await parse_body(b" " * n_bytes)

    assert parsed == {"bytes": n_bytes}
    assert [ident != threading.get_ident() for ident in parsing] == [bool(n_more)]
