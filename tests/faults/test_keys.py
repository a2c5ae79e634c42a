"""Who may call, by key."""

import ast
import hmac
import inspect
import itertools
import textwrap
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tamis.errors import SettingsError
from tamis.server import keys
from tamis.server.keys import KeyFile, make_key, presented_key
from tests.faults.raw import exchange, head
from tests.integration.serving import Gate, Served, Shell, serving_fake, until

KEY = "tamis_right-key"
OTHER = "tamis_other-key"
NUMBERS = itertools.count()

ROUTES = [
    *("/rerank", "/v1/rerank", "/v1/limits", "/v1/stats", "/v1/feedback", "/metrics"),
    *("/nowhere", "/docs/nowhere", "/docs/swagger-ui.css/x", "/health/x"),
]
DESCRIPTIONS = ["/", "/docs", "/docs/", "/openapi.json", "/docs/swagger-ui.css", "/docs/start.js"]


def line(key: str, name: str, *more: str) -> str:
    return " ".join([sha256(key.encode()).hexdigest(), name, *more]) + "\n"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.txt"
    path.write_text("# who may call\n\n" + line(KEY, "web") + line(OTHER, "batch", "20 # small"))
    return path


@pytest.fixture
def guarded(key_file: Path) -> Any:
    """A server that asks for a key."""
    with serving_fake(server={"keys_file": key_file}) as server:
        yield server


def ask(server: Served, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"query": "q", "documents": [f"a{next(NUMBERS)}"]}  # nobody else's answer will do
    return server.client.post("/rerank", json=body, headers=named)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY}"},
        {"x_api_key": KEY},
        {"x_api_key": OTHER},
    ],
)
def test_a_known_key_is_let_in(guarded: Served, headers: dict[str, str]) -> None:
    assert ask(guarded, **headers).status_code == 200


WRONG = {
    "no key": [],
    "an empty key": ["Authorization: Bearer "],
    "an unknown key": ["Authorization: Bearer tamis_wrong-key"],
    "a prefix of it": [f"Authorization: Bearer {KEY[:-1]}"],
    "more than it": [f"Authorization: Bearer {KEY}x"],
    "another case": [f"Authorization: Bearer {KEY.upper()}"],
    "its digest": [f"Authorization: Bearer {sha256(KEY.encode()).hexdigest()}"],
    "another scheme": [f"Authorization: Basic {KEY}"],
    "no scheme": [f"Authorization: {KEY}"],
    "not ASCII": ["Authorization: Bearer \xfc\xff\xe9"],
    "10 kB": ["Authorization: Bearer " + "x" * 10_000],
    "two headers": ["Authorization: Bearer x", f"Authorization: Bearer {KEY}"],
    "the same twice": [f"Authorization: Bearer {KEY}"] * 2,
    "one of each": [f"Authorization: Bearer {KEY}", f"X-API-Key: {KEY}"],
    "two in one": [f"Authorization: Bearer {KEY}, Bearer {KEY}"],
    "a wrong one and a right one": [f"X-API-Key: {KEY}", "X-API-Key: x"],
}


@pytest.mark.parametrize("lines", WRONG.values(), ids=WRONG.keys())
def test_row_25_any_other_key_is_401(guarded: Served, lines: list[str]) -> None:
    answer = exchange(guarded, head("Content-Length: 0", "Connection: close", *lines))
    assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="tamis"'
    assert KEY.encode() not in answer.body
    assert guarded.model.backend.batches == []


def test_row_25_all_keys_are_compared_in_constant_time() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(KeyFile.find)))
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For)]
    assert len(loops) == 1
    inside = list(ast.walk(loops[0]))
    assert not [node for node in inside if isinstance(node, ast.Break | ast.Return | ast.Continue)]
    called = {node.attr for node in inside if isinstance(node, ast.Attribute)}
    assert "compare_digest" in called
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert len(compared) == 0  # neither keys nor digests, by == or `in`


def test_row_25_a_wrong_key_costs_as_much_work_as_a_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("".join(line(f"key-{number}", f"name-{number}") for number in range(300)))
    known = KeyFile(path)
    compared: list[tuple[str, str]] = []

    def compare_digest(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    digests = [sha256(f"key-{number}".encode()).hexdigest() for number in range(300)]
    for key in (b"key-0", b"key-299", b"wrong", b"", b"x" * 10_000):
        compared.clear()
        known.find(key)
        digest = sha256(key).hexdigest()  # of one length, whatever was sent
        assert compared == [(one, digest) for one in digests]


def test_row_25_the_digest_of_no_key_is_no_key(tmp_path: Path) -> None:
    """`printf "$KEY" | sha256sum` of an empty variable must not let in everybody."""
    path = tmp_path / "keys.txt"
    path.write_text(line("", "everybody"))
    with pytest.raises(SettingsError, match="no key at all"):
        KeyFile(path)


def test_probes_need_no_key(guarded: Served) -> None:
    assert guarded.client.get("/livez").status_code == 200
    assert guarded.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
def test_row_26_every_route_and_method_asks_for_a_key(
    guarded: Served, method: str, path: str
) -> None:
    assert guarded.client.request(method, path).status_code == 401
    with_key = guarded.client.request(method, path, headers={"x-api-key": KEY})
    assert with_key.status_code != 401


SPELLINGS = [
    *(
        "//rerank",
        "/./rerank",
        "/livez/../rerank",
        "/%2e/rerank",
        "/livez%2f..%2frerank",
        "/rerank/",
    ),
    *(
        "/livez;/rerank",
        "/docs/rerank",
        "/docs/../rerank",
        "//docs/%2e%2e/v1/limits",
        "/livez%00",
        "/LIVEZ",
        "/livez%3fx",
        "/rerank%2e",
    ),
    *(
        "http://localhost/rerank",
        "http://x/rerank",
        "http://livez/rerank",
        "/metrics/",
        "/docs/../metrics",
        "*",
        "/livez%20",
    ),
]
HOSTS = [
    *(
        "localhost",
        "127.0.0.1",
        "x/livez?y=",
        "localhost/livez?",
        "localhost#/livez",
        "[::1]/livez",
    ),
    *("localhost:80/livez", "livez", "user@localhost", "", "localhost\\livez", "a b"),
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/metrics", *SPELLINGS])
def test_row_26_no_host_and_no_spelling_of_a_path_gets_past_the_keys(
    guarded: Served, path: str, host: str
) -> None:
    asked = head("Connection: close", start=f"GET {path} HTTP/1.1", host=host)
    assert exchange(guarded, asked).status in (400, 401)


@pytest.mark.parametrize(
    "path",
    [
        *("/livez", "/%6civez", "/livez?x=/rerank", "/livez/", "//livez"),
        *("http://localhost/livez", "http://evil.example//livez/"),
    ],
)
def test_row_26_a_probe_by_any_spelling_is_the_probe(guarded: Served, path: str) -> None:
    asked = head("Connection: close", start=f"GET {path} HTTP/1.1")
    assert exchange(guarded, asked).json() == {"status": "alive"}


@pytest.mark.parametrize("path", DESCRIPTIONS)
def test_the_description_of_the_api_asks_for_no_key(guarded: Served, path: str) -> None:
    answer = guarded.client.get(path, follow_redirects=True)
    assert answer.status_code == 200
    assert answer.content


def test_the_description_and_the_401_say_how_a_key_is_sent(guarded: Served) -> None:
    described = guarded.client.get("/openapi.json").json()["info"]["description"]
    refused = guarded.rerank("q", ["a"])
    assert refused.status_code == 401
    for text in (described, refused.json()["error"]):
        assert "Authorization: Bearer KEY" in text
        assert "X-API-Key: KEY" in text


def test_metrics_are_open_where_the_settings_say_so(key_file: Path) -> None:
    settings = {"keys_file": key_file, "metrics_open": True}
    with serving_fake(server=settings) as server:
        assert server.client.get("/metrics").status_code == 200
        assert server.client.get("/v1/limits").status_code == 401
        assert ask(server).status_code == 401
        assert server.metric("tamis_refusals_total", reason="unauthorized") == 2


def test_the_file_is_read_again_when_it_changes(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys, "SECONDS_BETWEEN_LOOKS", 0.0)
    known = KeyFile(key_file)
    new = "tamis_new-key"

    def names() -> list[str | None]:
        found = [known.find(key.encode()) for key in (KEY, new)]
        return [caller and caller.name for caller in found]

    assert names() == ["web", None]
    key_file.write_text(line(KEY, "web") + line(new, "web"))
    assert names() == ["web", "web"]
    replacement = key_file.with_suffix(".new")
    replacement.write_text(line(new, "web"))
    replacement.rename(key_file)
    assert names() == [None, "web"]
    key_file.write_text("spoiled")
    assert names() == [None, "web"]
    key_file.unlink()
    assert names() == [None, "web"]
    assert "the keys stay as they were" in caplog.text
    key_file.write_text("# all withdrawn\n")
    assert names() == [None, None]


def test_a_file_that_could_not_be_read_is_read_once_it_can_be(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions are mended without a change of its bytes; until then the old keys hold."""
    monkeypatch.setattr(keys, "SECONDS_BETWEEN_LOOKS", 0.0)
    known, read = KeyFile(key_file), Path.read_text

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    key_file.write_text(line(OTHER, "batch"))
    assert known.find(KEY.encode()) is not None
    monkeypatch.setattr(Path, "read_text", read)
    key_file.chmod(0o600)
    assert known.find(KEY.encode()) is None


def test_the_file_is_not_looked_at_for_every_request(key_file: Path) -> None:
    known = KeyFile(key_file)
    key_file.unlink()
    assert known.find(KEY.encode()) is not None


@pytest.mark.parametrize(
    "text",
    [
        *("", "# nobody\n", "web " + "0" * 64, "0" * 63 + " web", "0" * 64, "0" * 64 + " we/b"),
        *("0" * 64 + " web 0", "0" * 64 + " web x", "0" * 64 + " web 1 2"),
        ("0" * 64 + " web\n") * 2,
    ],
)
def test_a_file_without_keys_or_with_an_odd_line_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"keys\.txt"):
        KeyFile(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        KeyFile(tmp_path / "keys.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="no text"):
        KeyFile(tmp_path / "binary")


def test_a_key_that_was_made_is_found_by_its_line_and_is_not_in_it(tmp_path: Path) -> None:
    key, made = make_key("web", 500)
    (tmp_path / "keys.txt").write_text(made + "\n")
    caller = KeyFile(tmp_path / "keys.txt").find(key.encode())
    assert caller == keys.Caller("web", 500)
    assert key not in made
    assert make_key("web")[0] != key


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 65, "a\nb", "#"])
def test_an_odd_name_gets_no_key(name: str) -> None:
    with pytest.raises(SettingsError, match="letters"):
        make_key(name)


def test_the_command_prints_the_line_and_shows_the_key_once(shell: Shell, tmp_path: Path) -> None:
    made = shell.run("keys", "make", "web", "--tokens", "500")
    assert made.code == 0
    (tmp_path / "keys.txt").write_text(made.out)
    caller = KeyFile(tmp_path / "keys.txt").find(made.sentence.encode())
    assert caller == keys.Caller("web", 500)
    refused = shell.run("keys", "make", "two words")
    assert (refused.code, refused.out) == (78, "")


def test_header_names_are_as_the_server_gives_them() -> None:
    assert presented_key([(b"authorization", b"Bearer k"), (b"host", b"x")]) == b"k"
    assert presented_key([(b"x-api-key", b" k ")]) == b"k"
    assert presented_key([]) == b""


def test_a_key_has_its_quota_of_tokens_and_others_have_theirs(key_file: Path) -> None:
    gate = Gate()
    with (
        serving_fake(gate, server={"keys_file": key_file}) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        inside = [pool.submit(ask, server, x_api_key=OTHER) for _ in range(2)]
        until(lambda: server.life.service.statistics().n_tokens == 12)
        third = pool.submit(ask, server, x_api_key=OTHER)
        gate.opened.set()
        assert [future.result().status_code for future in [*inside, third]] == [200] * 3
        documents = {"query": "q", "documents": [f"a b c {n}" for n in range(5)]}
        for key, status in ((OTHER, 413), (KEY, 200)):
            answer = server.client.post("/rerank", json=documents, headers={"x-api-key": key})
            assert answer.status_code == status


def test_a_key_over_its_quota_is_429_while_others_are_let_in(key_file: Path) -> None:
    gate = Gate()
    with (
        serving_fake(gate, server={"keys_file": key_file}) as server,
        ThreadPoolExecutor(5) as pool,
    ):
        inside = [pool.submit(ask, server, x_api_key=OTHER) for _ in range(3)]
        until(lambda: server.life.service.statistics().n_tokens == 18)
        refused = ask(server, x_api_key=OTHER)
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        other = pool.submit(ask, server, x_api_key=KEY)
        until(lambda: server.life.service.statistics().n_tokens == 24)
        gate.opened.set()
        assert [future.result().status_code for future in [*inside, other]] == [200] * 4


def test_limits_show_the_keys_quota(guarded: Served) -> None:
    shown = [
        guarded.client.get("/v1/limits", headers={"x-api-key": key}).json()["max_queued_tokens"]
        for key in (KEY, OTHER)
    ]
    assert shown == [1_000_000, 20]
