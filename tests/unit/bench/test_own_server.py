import os
import signal
from collections.abc import Sequence
from pathlib import Path

import httpx2
import pytest

from tamis.bench.own_server import own_server, serve_options
from tamis.errors import SettingsError
from tamis.settings import ModelSettings, load_settings


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on most machines; servers start faster, too."""
    folder = tmp_path / "without-torch"
    folder.mkdir()
    (folder / "torch.py").write_text("raise ImportError('not installed here')\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def is_there(process_id: int) -> bool:
    return Path(f"/proc/{process_id}").exists()


def options_of(folder: Path) -> list[str]:
    return serve_options(ModelSettings(name=str(folder), threads=1), max_batch_tokens=256)


def test_a_servers_options_are_those_that_were_set() -> None:
    settings = ModelSettings(name="some/model", dtype="int8", offline=True, revision=None)
    assert serve_options(settings, max_batch_tokens=512) == [
        *("--model.name=some/model", "--model.dtype=int8", "--model.offline=True"),
        *("--scheduler.max_batch_tokens=512", "--cascade.keep=0"),
    ]
    assert load_settings(serve_options(settings, max_batch_tokens=512)).model == settings


def interrupt_when_ready(options: Sequence[str], seen: list[int]) -> None:
    with own_server(options) as server:
        assert httpx2.get(f"{server.url}/readyz").status_code == 200
        assert 0 < server.seconds_to_ready < 60
        assert is_there(server.process_id)
        seen.append(server.process_id)
        raise KeyboardInterrupt


def test_a_server_is_ready_in_the_block_and_gone_after_it(tiny_model: Path) -> None:
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupt_when_ready(options_of(tiny_model), seen)
    assert [is_there(process_id) for process_id in seen] == [False]


def kill_when_ready(options: Sequence[str]) -> None:
    with own_server(options) as server:
        os.kill(server.process_id, signal.SIGKILL)
        os.waitid(os.P_PID, server.process_id, os.WEXITED | os.WNOWAIT)
        raise SettingsError("no answer")


def test_a_server_that_ends_too_early_is_said_with_its_log(tiny_model: Path) -> None:
    options = options_of(tiny_model)
    with pytest.raises(SettingsError, match=r"no answer; it ended with code -9\.") as raised:
        kill_when_ready(options)
    assert "listening on http://127.0.0.1:" in str(raised.value)


def test_a_model_that_is_not_there_is_said_in_the_servers_words() -> None:
    with pytest.raises(SettingsError) as raised, own_server(["--model.name=/no/such"]):
        pass
    sentence, *tail = str(raised.value).splitlines()
    assert sentence == ("the server was not ready; it ended with code 78. The end of its log:")
    assert "/no/such" in tail[-1]


def test_a_server_that_takes_too_long_is_ended(tiny_model: Path) -> None:
    options = options_of(tiny_model)
    with (
        pytest.raises(SettingsError, match="was not ready in time; it still runs"),
        own_server(options, ready_seconds=0.0),
    ):
        pass
    assert not [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"--model.name={tiny_model}".encode() in path.read_bytes()
    ]
