"""`tamis baseline`, against servers in this process and with the embedded model."""

import json
from pathlib import Path

import msgspec
import pytest

from tamis.relevance.baseline import baseline_of, read_baseline, write_baseline
from tamis.server.keys import make_key
from tests.integration.serving import Served, Shell, serving_fake
from tests.rankings import snapshot

SIGNALS = {"top_psi", "top_ks", "all_psi", "all_ks", "retention", "kendall_tau", "tokens"}


def url_of(server: Served) -> str:
    return f"http://127.0.0.1:{server.port}"


def send(server: Served, n: int, headers: dict[str, str] | None = None) -> None:
    for number in range(n):
        body = {"query": f"q {number}", "documents": ["a", "b", "c"]}
        assert server.client.post("/rerank", json=body, headers=headers or {}).status_code == 200


def test_a_servers_requests_are_recorded_and_like_themselves(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    with serving_fake() as server:
        send(server, 120)
        recorded = shell.run("baseline", "record", file, "--url", url_of(server))
        compared = shell.run("baseline", "compare", file, "--url", url_of(server))
    assert recorded.code == 0, recorded.err
    assert recorded.out == f"{file}\t120 requests\tfake\n"
    assert "too little" not in recorded.err
    assert read_baseline(file).rankings.n_requests == 120
    assert compared.code == 0, compared.err
    rows = [line.split("\t") for line in compared.out.splitlines()]
    assert {row[0] for row in rows} >= SIGNALS
    assert {row[-1] for row in rows} == {"ok"}


def test_a_crossed_line_is_an_exit_code(shell: Shell, tmp_path: Path) -> None:
    healthy, shifted = tmp_path / "healthy.json", tmp_path / "shifted.json"
    write_baseline(healthy, baseline_of(snapshot(300, seed=0)))
    other = msgspec.structs.replace(snapshot(300, seed=1, shift=3.0), model="other")
    write_baseline(shifted, baseline_of(other))
    done = shell.run("baseline", "compare", healthy, shifted, "--json")
    assert done.code == 1
    verdicts = {one["signal"]: one for one in map(json.loads, done.out.splitlines())}
    assert verdicts["top_ks"]["crossed"] is True
    assert verdicts["retention"]["crossed"] is False
    assert "the baseline is of m, and this is other" in done.err


def test_a_terminal_gets_a_table(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    write_baseline(file, baseline_of(snapshot(300, seed=0)))
    shown = shell.run_on_terminal("baseline", "compare", file, file)
    assert shown.code == 0
    assert "distance" in shown.out
    assert "retention" in shown.out


def test_queries_of_ones_own_are_scored_here(shell: Shell, tmp_path: Path) -> None:
    data = tmp_path / "queries.jsonl"
    lines = [
        {"query": f"what is {number}?", "documents": [f"{number} is a number", "no"]}
        for number in range(5)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = shell.run("baseline", "record", tmp_path / "b.json", "--data", data)
    assert done.code == 0, done.err
    found = read_baseline(tmp_path / "b.json").rankings
    assert (found.model, found.n_requests) == ("tamis-mini", 5)
    assert sum(found.all.counts) == 10
    assert "5 requests are too few; 100 are needed" in done.err
    assert found.signals["tokens"].mean > 5


def test_a_key_is_read_from_a_file(shell: Shell, tmp_path: Path) -> None:
    key, line = make_key("web")
    (tmp_path / "keys.txt").write_text(line + "\n")
    (tmp_path / "key").write_text(key + "\n")
    with serving_fake(server={"keys_file": tmp_path / "keys.txt"}) as server:
        send(server, 3, {"x-api-key": key})
        asked = ("baseline", "record", tmp_path / "b.json", "--url", url_of(server))
        without = shell.run(*asked)
        done = shell.run(*asked, "--key-file", tmp_path / "key")
    assert without.code == 78
    assert "answers 401" in without.sentence
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("record", "b.json"), "either --url or --data"),
        (("record", "b.json", "--url", "http://127.0.0.1:9", "--data", "x"), "either --url"),
        (("record", "b.json", "--url", "http://127.0.0.1:9"), "does not answer"),
        (("record", "b.json", "--url", ""), "does not answer"),
        (("compare", "few.json"), "either --url or another file"),
        (("compare", "few.json", "few.json"), "20 requests are too few; 100 are needed"),
        (("compare", "none.json", "few.json"), "cannot read"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_baseline(tmp_path / "few.json", baseline_of(snapshot(20, seed=0)))
    done = shell.run("baseline", *arguments)
    assert done.code == 78
    assert sentence in done.sentence


def test_a_server_that_has_ranked_nothing_has_nothing_to_record(
    shell: Shell, tmp_path: Path
) -> None:
    with serving_fake() as server:
        done = shell.run("baseline", "record", tmp_path / "b.json", "--url", url_of(server))
    assert done.code == 78
    assert "ranked nothing yet" in done.sentence
    assert not (tmp_path / "b.json").exists()
