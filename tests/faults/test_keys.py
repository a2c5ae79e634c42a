"""Who may call, by key."""

import ast
import hmac
import inspect
import itertools
import os
import socket
import textwrap
import time
from collections.abc import Callable
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


def write_keys(folder: Path) -> Path:
    path = folder / "keys.txt"
    path.write_text("# who may call\n\n" + line(KEY, "web") + line(OTHER, "batch", "20 # small"))
    return path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return write_keys(tmp_path)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that asks for a key."""
    key_file = write_keys(tmp_path_factory.mktemp("guarded"))
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
    batches = guarded.model.backend.batches
    n_before = len(batches)

    answer = exchange(guarded, head("Content-Length: 0", "Connection: close", *lines))

    assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="tamis"'
    assert KEY.encode() not in answer.body
    assert len(batches) == n_before


def test_row_25_keys_are_compared_in_constant_time_by_their_digests() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(KeyFile.find)))
    nodes = list(ast.walk(tree))
    assert not [node for node in nodes if isinstance(node, ast.Compare | ast.For | ast.If)]
    called = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert {"compare_digest", "digest"} <= called


def test_row_25_a_wrong_key_costs_as_much_work_as_a_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("".join(line(f"key-{number}", f"name-{number}") for number in range(300)))
    known = KeyFile(path)
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    for key, is_known in ((b"key-0", True), (b"key-299", True), (b"wrong", False), (b"", False)):
        compared.clear()
        caller = known.find(key)
        digest = sha256(key).digest()  # of one length, whatever was sent
        ((one, other),) = compared
        assert (len(one), other) == (32, digest)
        assert (caller is not None, one == digest) == (is_known, is_known)


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


def names_of(known: KeyFile, *keys: str) -> list[str | None]:
    """Whose keys they are."""
    found = [known.find(key.encode()) for key in keys]
    return [caller and caller.name for caller in found]


NEW = "tamis_new-key"


def test_row_67_a_change_is_taken_once_it_is_the_same_at_two_looks(key_file: Path) -> None:
    known = KeyFile(key_file)
    assert names_of(known, KEY, NEW) == ["web", None]
    key_file.write_text(line(KEY, "web") + line(NEW, "web"))
    known.look()
    assert names_of(known, KEY, NEW) == ["web", None]
    known.look()
    assert names_of(known, KEY, NEW) == ["web", "web"]
    replacement = key_file.with_suffix(".new")
    replacement.write_text(line(NEW, "web"))
    replacement.rename(key_file)
    known.look()
    known.look()
    assert names_of(known, KEY, NEW) == [None, "web"]


def test_row_67_old_keys_hold_while_the_file_is_written(key_file: Path) -> None:
    known = KeyFile(key_file)
    with key_file.open("w") as file:  # empty now
        known.look()
        for number in range(20):
            file.write(line(f"other-{number}", "web"))
            file.flush()
            known.look()  # each time it is another one
            assert names_of(known, KEY) == ["web"]
        file.write(line(KEY, "again")[:50])  # half a line, and the writer rests
        file.flush()
        for _ in range(3):
            known.look()
        assert names_of(known, KEY) == ["web"]
        file.write(line(KEY, "again")[50:])
    known.look()
    known.look()
    assert names_of(known, KEY) == ["again"]


@pytest.mark.parametrize("text", ["", "# all withdrawn\n", "spoiled", line(KEY, "web") * 2])
def test_row_67_a_file_without_keys_changes_nothing_and_is_told_once(
    key_file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    known = KeyFile(key_file)
    key_file.write_text(text)
    for _ in range(5):
        known.look()
        assert names_of(known, KEY, OTHER) == ["web", "batch"]
    assert caplog.text.count("the keys stay as they were") == 1
    key_file.write_text(line(NEW, "web"))
    known.look()
    known.look()
    assert names_of(known, KEY, NEW) == [None, "web"]


def place_fifo(path: Path) -> None:
    os.mkfifo(path)


def place_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def place_folder(path: Path) -> None:
    path.mkdir()


def place_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def place_endless_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 * 2**30)


PLACES = [
    *(place_fifo, place_device, place_folder, place_socket, place_endless_file),
    lambda path: path.symlink_to(path.with_suffix(".gone")),
    lambda path: path.write_bytes(b"\xff\xfe\x00"),
    lambda path: None,
]


@pytest.mark.parametrize("place", PLACES)
def test_row_67_what_is_no_regular_file_is_not_waited_for(
    key_file: Path, place: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    known = KeyFile(key_file)
    key_file.unlink()
    place(key_file)
    for _ in range(4):
        known.look()
    assert names_of(known, KEY) == ["web"]
    assert caplog.text.count("the keys stay as they were") == 1
    with pytest.raises(SettingsError, match=r"keys\.txt"):
        KeyFile(key_file)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no more threads")])
@pytest.mark.parametrize("place", ["_stamp_of", "open_regular", "_parsed"])
def test_row_67_a_withdrawn_key_is_out_though_a_reading_failed(
    key_file: Path,
    place: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(keys, "SECONDS_BETWEEN_LOOKS", 0.01)
    known, right, failures = KeyFile(key_file), getattr(keys, place), [error] * 2

    def failing(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return right(*arguments)

    monkeypatch.setattr(keys, place, failing)
    known.follow()
    try:
        key_file.write_text(line(NEW, "web"))
        until(lambda: names_of(known, KEY, NEW) == [None, "web"])
    finally:
        known.close()
    assert caplog.text.count(type(error).__name__) == 1


@pytest.mark.parametrize("n_missing", [1, 7])
def test_row_67_a_last_line_that_is_cut_is_not_taken(
    key_file: Path, n_missing: int, caplog: pytest.LogCaptureFixture
) -> None:
    known, text = KeyFile(key_file), line(KEY, "web", "1000000")
    key_file.write_text(text[:-n_missing])
    for _ in range(4):
        known.look()
        known.read()
        assert known.find(KEY.encode()) == keys.Caller("web")
    assert caplog.text.count("has no line break") == 1
    key_file.write_text(text)
    known.look()
    known.look()
    assert known.find(KEY.encode()) == keys.Caller("web", 1_000_000)


def test_row_67_a_last_line_without_a_break_is_taken_once_it_has_not_changed_for_a_while(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KeyFile(key_file)
    key_file.write_text(line(NEW, "web").rstrip())
    for _ in range(3):
        known.look()
    assert names_of(known, KEY, NEW) == ["web", None]
    monkeypatch.setattr(keys, "SECONDS_UNTIL_WHOLE", 0.0)
    known.look()
    assert names_of(known, KEY, NEW) == [None, "web"]


def test_row_67_an_editor_that_ends_no_last_line_keeps_nobody_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(line(KEY, "web").rstrip())
    known = KeyFile(path)
    known.look()
    assert names_of(known, KEY) == ["web"]
    assert not caplog.text


def test_row_67_many_signals_are_one_reading_and_the_end_goes_before_them(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KeyFile(key_file)
    n_readings, read = 0, known.read

    def counted() -> None:
        nonlocal n_readings
        n_readings += 1
        read()
        if n_readings == 1:
            for _ in range(300):
                known.reload()
        else:
            known.reload()
            known.close()
            known.reload()

    monkeypatch.setattr(known, "read", counted)
    known.reload()
    known._follow()
    assert n_readings == 2


def test_row_67_fifty_thousand_keys_cost_a_request_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("".join(line(f"key-{number}", f"n{number}") for number in range(50_000)))
    known = KeyFile(path)
    started = time.perf_counter()
    for _ in range(1000):
        known.find(b"wrong")
        known.find(b"key-49999")
    assert time.perf_counter() - started < 0.5  # it was 3 ms for each
    assert names_of(known, "key-49999") == ["n49999"]


def test_row_67_a_served_file_that_is_rewritten_in_place_refuses_nobody(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SECONDS_BETWEEN_LOOKS", 0.02)
    text = key_file.read_text() + line(NEW, "web")
    with serving_fake(server={"keys_file": key_file}) as server:

        def status(key: str) -> int:
            answer = server.client.get("/v1/limits", headers={"x-api-key": key})
            return int(answer.status_code)

        for _ in range(10):
            with key_file.open("w") as file:
                for piece in text.splitlines(keepends=True):
                    assert status(KEY) == 200
                    file.write(piece)
                    file.flush()
        until(lambda: status(NEW) == 200)
        assert status(KEY) == 200


def test_a_file_that_could_not_be_read_is_read_once_it_can_be(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without a descriptor for it; until then the old keys hold."""
    known, opened = KeyFile(key_file), keys.open_regular

    def refused(path: Path) -> None:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(keys, "open_regular", refused)
    key_file.write_text(line(OTHER, "batch"))
    known.look()
    known.look()
    assert names_of(known, KEY) == ["web"]
    monkeypatch.setattr(keys, "open_regular", opened)
    known.look()
    assert names_of(known, KEY) == [None]


def test_a_request_does_not_look_at_the_file(key_file: Path) -> None:
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
