"""What a body may say: read strictly, bounded before any work, refused without repeating it."""

import json
from collections.abc import Iterator
from typing import Any, Self

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tamis.errors import MalformedBodyError
from tamis.wire.parsing import MAX_CONTAINERS, MAX_DEPTH, parse_object
from tests.integration.serving import Served, serving_fake
from tests.unit.wire.test_parsing import MALFORMED, built

CANARY = "canary7f3a"


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    """A server with nothing set."""
    with serving_fake() as server:
        yield server


def post(server: Served, data: bytes, kind: str | None = "application/json") -> httpx2.Response:
    return server.client.post(
        "/rerank", content=data, headers={"content-type": kind} if kind else {}
    )


def nested(depth: int, opened: str = "[", closed: str = "]") -> bytes:
    """A body of so many levels."""
    deep = opened * (depth - 3) + "1" + closed * (depth - 3)
    body = f'{{"query": "q", "documents": [{{"text": "a", "more": {deep}}}]}}'
    return body.encode()


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_row_19_what_is_not_strict_json_is_400(plain: Served, data: bytes) -> None:
    answer = post(plain, data)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    assert plain.rerank("q", ["a"]).status_code == 200


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}"), ('[{"]":', "}]")])
def test_row_19_more_levels_than_16_are_400(plain: Served, opened: str, closed: str) -> None:
    levels = len(opened.replace('"]":', "").replace('"a":', ""))
    for depth in (4, MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2, 100, 900):
        data = nested((depth - 3) // levels + 3, opened, closed)
        real = 3 + (depth - 3) // levels * levels
        assert post(plain, data).status_code == (200 if real <= MAX_DEPTH else 400)


@pytest.mark.parametrize(
    "text",
    ["[" * 100, "{" * 100, '"[' * 40, '\\"[' * 40, "\\", '\\\\"' + "[{" * 50, "[]" * 99, '"'],
)
def test_brackets_in_a_text_are_no_levels(plain: Served, text: str) -> None:
    body = {"query": text, "documents": [text, {"text": text, text: [text]}]}
    assert post(plain, json.dumps(body).encode()).status_code == 200


def wrapped(value: object, depth: int) -> object:
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value: object) -> int:
    """Levels, counted the slow way."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(
    st.recursive(
        st.text('[]{}"\\a', max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text('[]{}"\\', max_size=2), inner, max_size=2)
            | st.builds(wrapped, inner, st.integers(1, 9))
        ),
        max_leaves=12,
    )
)
def test_levels_are_counted_as_they_are(value: object) -> None:
    body = {"a": value}
    data = json.dumps(body).encode()
    if depth_of(body) <= MAX_DEPTH:
        assert built(parse_object(data)) == body
    else:
        with pytest.raises(MalformedBodyError, match="more than 16 levels"):
            parse_object(data)


def test_row_19_more_arrays_and_objects_than_100_000_are_400(plain: Served) -> None:
    for n, status in ((MAX_CONTAINERS, 200), (MAX_CONTAINERS + 1, 400)):
        more: list[list[object]] = [[]] * (n - 4)  # the body, its documents, one of them, and this
        answer = plain.rerank("q", [{"text": "a", "more": more}])
        assert answer.status_code == status


def test_row_19_a_key_given_twice_counts_as_it_was_given_last(plain: Served) -> None:
    answer = post(
        plain, b'{"query": "a", "query": "b", "documents": ["x"], "documents": ["y", "z"]}'
    )
    assert answer.json()["query"] == "b"
    assert len(answer.json()["results"]) == 2


@pytest.mark.parametrize(
    ("number", "status"), [("1" * 30, 200), ("9" * 5_000, 400), ("1e400", 400), ("2.0", 200)]
)
def test_row_19_a_huge_number_is_all_or_no_json(plain: Served, number: str, status: int) -> None:
    data = f'{{"query": "q", "documents": ["a"], "top_n": {number}}}'
    assert post(plain, data.encode()).status_code == status


OUT_OF_RANGE_INSIDE = [
    ("/rerank", '{"query": "a", "documents": ["b"], "x": [1e999]}'),
    ("/rerank", '{"query": "a", "documents": ["b"], "x": {"y": -1e999}}'),
    ("/rerank", '{"query": "a", "documents": ["b"], "truncate": [1e999]}'),
    ("/rerank", '{"query": "a", "documents": ["b"], "model": [1e999]}'),
    ("/rerank", '{"query": "a", "documents": [{"text": "a", "m": 1e999}]}'),
    ("/rerank", '{"query": "a", "texts": [1e999]}'),
    ("/v1/feedback", '{"request_id": [1e999], "index": 0, "event": "used"}'),
]


@pytest.mark.parametrize(("path", "body"), OUT_OF_RANGE_INSIDE)
def test_row_19_a_number_out_of_range_inside_of_a_field_is_400(
    plain: Served, path: str, body: str
) -> None:
    answer = plain.client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert "too large to read" in answer.text


@pytest.mark.parametrize(
    "kind",
    [
        None,
        *("application/json", "Application/JSON", "application/json; charset=utf-8"),
        *('application/json;charset="UTF-8"', "application/vnd.api+json", "application/json; v=1"),
    ],
)
def test_json_by_any_name_is_read(plain: Served, kind: str | None) -> None:
    assert post(plain, b'{"query": "q", "documents": ["a"]}', kind).status_code == 200


@pytest.mark.parametrize(
    "kind",
    [
        *("text/plain", "application/x-www-form-urlencoded", "application/xml", CANARY, "json"),
        *("application/json; charset=utf-16", "application/json; charset=latin-1", "text/json"),
    ],
)
def test_another_media_type_is_415(plain: Served, kind: str) -> None:
    answer = post(plain, b'{"query": "q", "documents": ["a"]}', kind)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert CANARY not in answer.text


UNICODE = {
    "NUL": "\0",
    "right to left": "\u202e\u2066\u2069",
    "joined emoji": "\N{WOMAN}\u200d\N{FIRE ENGINE}" * 500,
    "20,000 marks": "e" + "\u0301" * 20_000,
    "ligatures": "\ufdfa" * 20_000,
    "no character": "\uffff\ufffe\U0010ffff",
    "private": "\ue000" * 100,
}


@pytest.mark.parametrize("text", UNICODE.values(), ids=UNICODE.keys())
def test_row_20_odd_unicode_is_scored(served: Served, text: str) -> None:
    answer = served.rerank(text[:16_000], [text, {"text": text}, "a"])
    assert answer.status_code == 200
    assert {result["index"] for result in answer.json()["results"]} == {0, 1, 2}


@pytest.mark.parametrize("text", ["", " ", "\u200b", "\u3000", ".", " - ", "| | |\n|---|---|"])
def test_row_51_a_blank_document_ranks_last_and_counts_as_irrelevant(
    served: Served, text: str
) -> None:
    body = {"query": "what is a panda?", "documents": [text, "The taxi is late."]}
    answer = served.client.post("/rerank", json=body).json()
    assert [one["index"] for one in answer["results"]] == [1, 0]
    assert answer["results"][1]["relevance_score"] == 0
    kept = served.client.post("/rerank", json=body | {"threshold": 0}).json()
    assert [one["index"] for one in kept["results"]] == [1]


@given(st.text(st.characters(), min_size=1, max_size=30))
@example("\ud800")
@example("a\udfff")
def test_row_20_a_lone_surrogate_is_400_and_any_other_text_is_read(text: str) -> None:
    data = json.dumps({"query": text, "documents": ["a"]}).encode()  # surrogates as escapes
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        with pytest.raises(MalformedBodyError) as caught:
            parse_object(data)
        assert text not in str(caught.value)
    else:
        assert built(parse_object(data))["query"] == text


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"documents": ["a", "x" * 100_001]}, "document 1 has 100,001 characters"),
        ({"documents": [{"text": "x" * 2_000_000}]}, "document 0 has 2,000,000 characters"),
        ({"texts": ["x" * 100_001]}, "document 0"),
        ({"query": "x" * 16_001, "documents": ["a"]}, "the query has 16,001 characters"),
        ({"query": "\N{FIRE}" * 16_001, "documents": ["a"]}, "the query has 16,001 characters"),
    ],
    ids=["over", "2 million", "tei", "query", "emoji"],
)
def test_row_22_a_text_over_its_limit_that_may_not_be_cut_is_422_before_it_is_tokenized(
    plain: Served, fields: dict[str, Any], what: str
) -> None:
    before = len(plain.model.backend.batches)
    answer = plain.client.post("/rerank", json={"query": "q", "truncate": False} | fields)
    assert answer.status_code == 422
    assert what in answer.text
    assert len(plain.model.backend.batches) == before


def test_row_22_a_thousand_long_documents_are_413(plain: Served) -> None:
    answer = plain.rerank("q", ["x" * 100_000] * 1_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_text_at_its_limit_is_scored(served: Served) -> None:
    answer = served.rerank("q " * 8_000, ["x" * 100_000, "word " * 20_000])
    assert answer.status_code == 200
    assert answer.json()["usage"]["truncated_documents"] == 2


@pytest.mark.parametrize(("n_documents", "status"), [(14, 200), (26, 413)])
def test_tokens_over_the_limit_are_413_before_any_is_made(n_documents: int, status: int) -> None:
    with serving_fake(limits={"max_request_tokens": 100}) as server:
        answer = server.rerank("q", ["xxxx" * 12] * n_documents)  # one word, twelve by its letters
        assert answer.status_code == status
        assert len(server.model.backend.batches) == (status == 200)


def test_tokens_that_letters_do_not_tell_are_413_once_they_are_counted() -> None:
    with serving_fake(limits={"max_request_tokens": 100}) as server:
        answer = server.rerank("q", ["a " * 60, "b " * 60])
        assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
        assert answer.json()["error"] == (
            "the request has 130 tokens, at most 100 allowed; split the request"
        )


class Heartbeat:
    """Ticks in a server's event loop and keeps the longest delay of a tick."""

    def __init__(self, server: Served) -> None:
        self._loop = server.server.servers[0].get_loop()
        self._goes_on = True
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._loop.call_soon_threadsafe(self._tick, self._loop.time())
        return self

    def __exit__(self, *_: object) -> None:
        self._goes_on = False

    def _tick(self, wanted: float) -> None:
        now = self._loop.time()
        self.longest = max(self.longest, now - wanted)
        if self._goes_on:
            self._loop.call_at(now + 0.002, self._tick, now + 0.002)


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        ({"documents": ["x" * 2_000_000]}, {200}),
        ({"documents": ["x" * 100_000] * 70}, {200}),
        ({"documents": ["word " * 1_500] * 1_000}, {200}),
        ({"documents": ["a"], "more": [["["], 1] * 300_000}, {400}),
        ({"documents": [{"text": "a", "more": [[]] * 90} for _ in range(1_000)]}, {200}),
    ],
    ids=["2 million characters", "70 long", "1,000 long", "brackets", "lists"],
)
def test_row_22_the_loop_turns_while_a_large_body_is_read(
    served: Served, body: dict[str, Any], statuses: set[int]
) -> None:
    data = json.dumps({"query": "q", "top_n": 1} | body).encode()
    longest = []
    for _ in range(30):  # other processes may hold the machine in some of them
        with Heartbeat(served) as heartbeat:
            assert post(served, data).status_code in statuses
        longest.append(heartbeat.longest)
        if heartbeat.longest < 0.05:
            break
    assert min(longest) < 0.05, longest


DOCUMENTED = [
    ({"query": "", "documents": ["a"]}, 400),
    ({"query": "  ", "documents": ["a"]}, 400),
    ({"query": None, "documents": ["a"]}, 400),
    ({"query": "q", "documents": []}, 400),
    ({"query": "q", "documents": None}, 400),
    ({"query": "q", "documents": [""]}, 200),
    ({"query": "q", "documents": ["same"] * 5}, 200),
    ({"query": "q", "documents": ["a", "b"], "top_n": 0}, 200),
    ({"query": "q", "documents": ["a", "b"], "top_n": None}, 200),
    ({"query": "q", "documents": ["a", "b"], "top_n": 9}, 200),
    ({"query": "q", "documents": ["a", "b"], "top_n": "3"}, 200),
    ({"query": "q", "documents": ["a", "b"], "top_n": 10**400, "timeout_ms": 10**400}, 200),
    ({"query": "q", "documents": ["a", "b"], "priority": 10**400}, 422),
    ({"query": "q", "documents": ["a", "b"], "threshold": 10**400}, 422),
    ({"query": "q", "documents": ["a", "b"], "top_n": -1}, 422),
    ({"query": "q", "documents": ["a", "b"], "top_n": CANARY}, 422),
    ({"query": "q", "documents": ["a", "b"], "top_n": 1.5}, 422),
    ({"query": "q", "documents": ["a", "b"], "top_n": [CANARY]}, 422),
]


@pytest.mark.parametrize(("body", "status"), DOCUMENTED, ids=str)
def test_row_23_each_edge_of_a_field_has_its_answer(
    plain: Served, body: dict[str, Any], status: int
) -> None:
    answer = plain.client.post("/rerank", json=body)
    assert answer.status_code == status
    assert CANARY not in answer.text
    if status == 200:
        assert len(answer.json()["results"]) == len(body["documents"])


@pytest.mark.parametrize(
    "body",
    [
        # RAGFlow's Xinference, Dify, Open WebUI, LiteLLM to TEI, and LlamaIndex, as they send it
        {"query": "q", "documents": ["a"], "model": "m", "return_documents": "true"},
        {"query": "q", "documents": ["a"], "model": "m", "top_n": 1, "return_documents": True},
        {"query": "q", "documents": ["a"], "model": "", "top_n": None},
        {"query": "q", "texts": ["a"], "raw_scores": False, "truncate": True, "top_n": 1},
        {"query": "q", "texts": ["a"], "truncation_direction": "Right", "unknown": {"a": [1]}},
        {
            "query": "q",
            "documents": ["a"],
            "user": None,
            "max_chunks_per_doc": 10,
            "rank_fields": [],
        },
    ],
    ids=range(6),
)
def test_row_24_what_clients_send_is_answered(plain: Served, body: dict[str, Any]) -> None:
    assert plain.client.post("/rerank", json=body).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"documents": [{CANARY: CANARY}]},
        {"documents": {CANARY: CANARY}},
        {"documents": [[CANARY]]},
        {"documents": ["a"], "top_n": CANARY},
        {"documents": ["a"], "threshold": CANARY},
        {"documents": ["a"], "return_documents": CANARY},
        {"documents": ["a"], "truncate": {CANARY: 1}},
        {"documents": ["a"], "priority": CANARY},
        {"texts": [{CANARY: CANARY}]},
        {"texts": ["a"], "truncation_direction": CANARY},
        {"texts": ["a"], CANARY: float(1), "raw_scores": CANARY},
        {"documents": [1], "model": CANARY},
        {"documents": ["a"], "model": {CANARY: CANARY}},
    ],
    ids=str,
)
def test_no_error_repeats_what_was_sent(plain: Served, fields: dict[str, Any]) -> None:
    answer = plain.client.post("/rerank", json={"query": CANARY} | fields)
    assert answer.status_code in (400, 422)
    assert CANARY not in answer.text


def test_limits_are_shown_as_they_are_set() -> None:
    with serving_fake(limits={"max_documents": 7, "body_seconds": 3}) as server:
        shown = server.client.get("/v1/limits").json()
    assert shown == {
        "max_body_bytes": 8 * 2**20,
        "max_total_body_bytes": 256 * 2**20,
        "max_unsent_bytes": 64 * 2**20,
        "max_unpacked_ratio": 20,
        "content_encodings": ["gzip", "x-gzip", "zstd"],
        "max_depth": 16,
        "max_containers": 100_000,
        "max_documents": 7,
        "max_document_characters": 100_000,
        "max_query_characters": 16_000,
        "max_request_tokens": 1_000_000,
        "max_tokens_per_pair": 512,
        "max_queued_tokens": 1_000_000,
        "max_timeout_ms": 120_000,
        "max_headers": 64,
        "max_header_bytes": 32_768,
        "max_chunks": 8_192,
        "header_seconds": 10.0,
        "body_seconds": 3.0,
        "answer_seconds": 15.0,
        "max_answer_seconds": 60.0,
        "idle_seconds": 75.0,
    }
