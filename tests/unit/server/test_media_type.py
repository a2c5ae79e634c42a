import pytest
from starlette.datastructures import Headers

from tamis.errors import UnsupportedMediaTypeError
from tamis.server.media_type import LONGEST_BYTES, is_json_in_utf8, require_json

JSON = "application/json"


@pytest.mark.parametrize(
    "value",
    [
        *(
            JSON,
            "APPLICATION/JSON",
            f" {JSON}\t",
            "application/vnd.api+json",
            f"{JSON};",
            f"{JSON} ; ",
        ),
        *(f"{JSON};charset=utf-8", f"{JSON} ;\tcharset=UTF-8 ", f'{JSON}; charset="Utf-8"'),
        *(
            f"{JSON}; v=1;charset=utf-8",
            f'{JSON}; profile="https://a/b;c"',
            f"{JSON};;charset=utf-8",
        ),
        JSON + ";" * (LONGEST_BYTES - len(JSON)),
    ],
)
def test_json_in_utf8_is_read(value: str) -> None:
    assert is_json_in_utf8(value)


@pytest.mark.parametrize(
    "value",
    [
        *("", "json", "text/json", "application/jsonp", "application/json2", "application/+json"),
        *("application/json, application/json", "application/json application/json", f"x{JSON}"),
        *(f"{JSON}; charset={name}" for name in ("utf-16", "latin-1", "utf8", "utf-7", "zlib", "")),
        *(f"{JSON}; charset*=utf-8''utf-8", f"{JSON}; charset*0=utf-8", f"{JSON}; charset*=x"),
        *(f'{JSON}; charset="utf-8', f"{JSON}; charset='utf-8'", f'{JSON}; charset="utf\\-8"'),
        *(f"{JSON}; charset = utf-8", f"{JSON}; charset", f"{JSON} charset=utf-8", f"{JSON}; é=1"),
        *(f"{JSON}; charset=utf-8; charset=utf-16", f"{JSON}; charset=utf-16; charset=utf-8"),
        JSON + ";" * (LONGEST_BYTES - len(JSON) + 1),
    ],
)
def test_anything_else_is_not(value: str) -> None:
    assert not is_json_in_utf8(value)


def test_a_type_given_twice_is_refused_even_if_both_are_json() -> None:
    require_json(Headers(raw=[]))
    require_json(Headers(raw=[(b"content-type", b"application/json")]))
    with pytest.raises(UnsupportedMediaTypeError):
        require_json(Headers(raw=[(b"content-type", b"application/json")] * 2))
