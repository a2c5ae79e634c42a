"""Which dialect is spoken: by the path, then by the body."""

from typing import Any

import msgspec
import pytest

from tamis.errors import InferenceError, MalformedBodyError, QueueFullError, TamisError
from tamis.wire.dialect import Dialect, Endpoint, Failure, Method
from tamis.wire.registry import DIALECTS, Registry
from tests.unit.wire.bodies import spoken


class ParrotError(msgspec.Struct):
    """What one dialect says of an error."""

    squawk: str
    error: str = "parrot"


def dialect(
    name: str, *paths: str, method: Method = "POST", field: str | None = None, status: int = 418
) -> Dialect:
    """One that is known by a field, or takes any body."""
    return Dialect(
        name,
        endpoints=(
            Endpoint(
                method=method,
                paths=paths,
                recognizes=lambda body: field is None or field in body,
                answer=dict[str, str],
            ),
        ),
        error=ParrotError,
        encode_error=lambda failure: (status, ParrotError(f"{name}: {failure.error}", name)),
    )


PLAIN = dialect("plain", "/rerank", "/v1/rerank")
PARROT = dialect("parrot", "/parrot/rerank", "/v1/rerank", "/rerank", field="parrot")
INFO = dialect("info", "/info", "/parrot/info", method="GET")
BIRDS = Registry(PLAIN, PARROT, INFO)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"query": "q", "documents": ["a"]}, "native"),
        ({"query": "q", "documents": ["a"], "model": None}, "native"),
        ({}, "native"),
        ({"query": "q", "documents": ["a"], "model": "m"}, "jina"),
        ({"query": "q", "documents": ["a"], "model": ""}, "jina"),
        ({"model": "m"}, "jina"),
        ({"query": "q", "texts": ["a"]}, "tei"),
        ({"query": "q", "texts": ["a"], "documents": ["a"], "model": "m"}, "tei"),
        ({"texts": None}, "tei"),
    ],
)
def test_the_shape_of_a_body_chooses_the_dialect(body: dict[str, Any], name: str) -> None:
    assert spoken(body).name == name


def test_a_path_of_one_dialect_is_enough_whatever_the_body() -> None:
    assert BIRDS.choose("/parrot/rerank", "POST", {})[0] is PARROT
    assert BIRDS.choose("/info", "GET", {})[0] is INFO


@pytest.mark.parametrize(
    ("body", "chosen"),
    [({}, PLAIN), ({"parrot": 1}, PARROT), ({"documents": []}, PLAIN)],
    ids=["plain", "parrot", "documents"],
)
def test_on_a_shared_path_the_last_that_recognizes_the_body_is_spoken(
    body: dict[str, Any], chosen: Dialect
) -> None:
    assert BIRDS.choose("/v1/rerank", "POST", body)[0] is chosen


def test_where_nobody_recognizes_a_body_the_first_of_the_path_is_spoken() -> None:
    narrow = Registry(PLAIN, dialect("a", "/x", field="a"), dialect("b", "/x", field="b"))
    assert narrow.choose("/x", "POST", {})[0].name == "a"


def test_each_path_and_method_is_a_place_with_all_who_share_it() -> None:
    assert [(path, method, len(found)) for path, method, found in BIRDS.places()] == [
        ("/rerank", "POST", 2),
        ("/v1/rerank", "POST", 2),
        ("/parrot/rerank", "POST", 1),
        ("/info", "GET", 1),
        ("/parrot/info", "GET", 1),
    ]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/rerank", ["plain", "parrot"]),
        ("/parrot/rerank", ["parrot"]),
        ("/info", ["info"]),
        ("/api/v2/rerank", ["plain", "parrot"]),
        ("/rerank/nowhere", ["plain", "parrot"]),
        ("/parrot/nowhere", ["parrot", "info"]),
        ("/info/nowhere", ["info"]),
        *((path, ["plain"]) for path in ("/", "/nowhere", "/v1/nowhere", "/v1", "//", "", "/v1/")),
    ],
)
def test_an_unknown_path_is_spoken_to_as_those_that_it_is_like(path: str, names: list[str]) -> None:
    assert [one.name for one in BIRDS.speakers(path)] == names


def test_before_the_body_tells_an_error_has_the_fields_of_all_and_the_firsts_status() -> None:
    failure = Failure(TamisError("no"), 400, "id")
    assert BIRDS.encode_error("/info", failure) == (418, {"squawk": "info: no", "error": "info"})

    both = Registry(PLAIN, dialect("other", "/rerank", status=400))
    status, body = both.encode_error("/rerank", failure)
    assert (status, body) == (418, {"squawk": "plain: no", "error": "plain"})


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (MalformedBodyError("no JSON"), 400, "Validation"),
        (QueueFullError("no room"), 429, "Overloaded"),
        (InferenceError("no number"), 500, "Backend"),
    ],
)
def test_an_early_error_on_a_shared_path_has_what_each_client_reads(
    path: str, error: TamisError, status: int, error_type: str
) -> None:
    found, body = DIALECTS.encode_error(path, Failure(error, status, "r1"))
    assert found == status
    assert body == {
        "error": str(error),
        "code": error.code,
        "request_id": "r1",
        "id": "r1",
        "message": str(error),
        "detail": str(error),
        "error_type": error_type,
    }


def test_elsewhere_an_early_error_is_tamiss_own() -> None:
    error = MalformedBodyError("no JSON")
    _, body = DIALECTS.encode_error("/v1/feedback", Failure(error, 400, "r1"))
    assert body == {"error": "no JSON", "code": "malformed_body", "request_id": "r1"}


def test_names_of_dialects_are_unique_and_paths_are_as_the_server_spells_them() -> None:
    names = [one.name for one in DIALECTS.dialects]
    assert len(set(names)) == len(names)
    assert all(path == "/" + path.strip("/") for path, _, _ in DIALECTS.places())
