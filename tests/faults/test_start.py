"""Rows 36 to 41 and 44: what a server meets when it starts, and what it lives in."""

import ast
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import httpx2
import pytest

import tamis
from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.ctranslate2.conversion import convert
from tamis.engine.golden import GOLDEN_FILE, read_golden, write_golden
from tamis.engine.location import EMBEDDED_FOLDER
from tamis.engine.manifest import write_manifest
from tamis.errors import RuntimeUnavailableError
from tamis.scheduler.execution import FAILURES_UNTIL_STAND_IN
from tamis.settings import Settings
from tests.faults.doubles import FaultyBackend, Place, alone, logits_of, serving_on
from tests.faults.test_memory import DoubleServer
from tests.hub_server import Repository, running_hub
from tests.integration.serving import Process, Shell, sample, serving, until

CONFIG_ERROR = 78  # EX_CONFIG of sysexits.h


def serve(shell: Shell, name: str | Path, *arguments: str, **environment: str) -> Process:
    """A real process on a free port, with one CPU thread."""
    own = ("--model.name", str(name), "--server.port", "0", "--model.threads", "1")
    return shell.serve(*own, *arguments, **environment)


def assert_refused(process: Process, *words: str) -> None:
    """It ends with 78 and one sentence that has these words."""
    assert process.wait() == CONFIG_ERROR, process.log
    last = process.lines[-1]  # JSON once the settings are read, a sentence before
    sentence = json.loads(last)["event"] if last.startswith("{") else last.removeprefix("tamis: ")
    assert [word for word in words if word not in sentence] == [], last
    assert "Traceback" not in process.log


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A model's folder with a manifest, to be broken."""
    copied = tmp_path / "model"
    shutil.copytree(tiny_model, copied)
    write_manifest(copied)
    return copied


@pytest.fixture
def converted(shell: Shell, tiny_model: Path, tmp_path: Path) -> Path:
    """A converted model that stands alone, to be broken."""
    made = tmp_path / "converted"
    done = shell.run("models", "convert", tiny_model, "--output", made)
    assert done.code == 0, done.err
    return made


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def leave_pickles_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "tamis-manifest.json").unlink()


def want_code(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoModel": "code.Model"})
    write_manifest(folder)


def want_another_shape(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=7)
    write_manifest(folder)


def lose_a_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_manifest(folder)


def lead_elsewhere(folder: Path) -> None:
    """A link in place of the weights, to a file outside that is another one."""
    outside = folder.parent / "outside.safetensors"
    shutil.copy(folder / "model.safetensors", outside)
    flip_a_bit(outside)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(outside)


def sparse(folder: Path, name: str) -> None:
    """4 GiB that take no room on the disk."""
    (folder / name).unlink(missing_ok=True)
    with (folder / name).open("wb") as file:
        file.truncate(4 * 2**30)


def fifo(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


def device(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")


def list_elsewhere(folder: Path) -> None:
    manifest = {"sha256": {"../../etc/hostname": "0" * 64}}
    (folder / "tamis-manifest.json").write_text(json.dumps(manifest))


BREAKAGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a bit of the weights": (
        lambda folder: flip_a_bit(folder / "model.safetensors"),
        ("model.safetensors", "manifest"),
    ),
    "a bit of the tokenizer": (
        lambda folder: flip_a_bit(folder / "tokenizer.json"),
        ("tokenizer.json", "manifest"),
    ),
    "a missing shard": (lose_a_shard, ("model-00001-of-00002.safetensors",)),
    "pickles alone": (leave_pickles_only, ("pytorch_model.bin",)),
    "code with the weights": (want_code, ("code that comes with weights",)),
    "a link elsewhere": (lead_elsewhere, ("model.safetensors", "manifest")),
    "a wrong config": (want_another_shape, ("config.json", "layers")),
    "a tokenizer of 4 GiB": (lambda folder: sparse(folder, "tokenizer.json"), ("tokenizer.json",)),
    "golden logits of 4 GiB": (lambda folder: sparse(folder, GOLDEN_FILE), (GOLDEN_FILE,)),
    "a config that is a FIFO": (lambda folder: fifo(folder, "config.json"), ("config.json",)),
    "a device for weights": (
        lambda folder: device(folder, "model.safetensors"),
        ("model.safetensors", "regular file"),
    ),
    "a manifest of other folders": (list_elsewhere, ("tamis-manifest.json", "inside its folder")),
    "half a config": (
        lambda folder: (folder / "config.json").write_text("{"),
        ("config.json",),
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_row_36_a_model_that_is_not_what_it_was_is_refused_with_78(
    shell: Shell, folder: Path, breakage: str, tmp_path: Path
) -> None:
    spoil, words = BREAKAGES[breakage]
    spoil(folder)
    # of its own: another breakage's start may have converted the same weights while they were sound
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with serve(shell, folder, **cache) as process:
        assert_refused(process, *words)


@pytest.fixture
def hub_model(tiny_model: Path) -> Iterator[tuple[str, str]]:
    """A hub with a model, by endpoint and name."""
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir() if path.is_file()}
    with running_hub() as hub:
        repository = Repository()
        repository.commit(files, "main")
        hub.repositories["tamis-tests/tiny"] = repository
        yield hub.endpoint, "tamis-tests/tiny"


def test_row_36_a_manifest_made_at_pull_is_what_the_server_verifies_at_load(
    shell: Shell, hub_model: tuple[str, str], tmp_path: Path
) -> None:
    endpoint, name = hub_model
    home = {"HF_HOME": str(tmp_path / "hub"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    quiet = {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "HF_ENDPOINT": endpoint}
    pulled = shell.run("models", "pull", name, **home, **quiet)
    assert pulled.code == 0, pulled.err
    (manifest,) = (tmp_path / "hub").rglob("tamis-manifest.json")
    flip_a_bit((manifest.parent / "model.safetensors").resolve())
    with serve(shell, name, "--model.offline", **home, **quiet) as process:
        assert_refused(process, "model.safetensors", "manifest")


@pytest.mark.parametrize("n_workers", ["0", "1"])
def test_row_36_a_tokenizer_that_has_changed_since_the_conversion_is_refused(
    shell: Shell, folder: Path, n_workers: str
) -> None:
    workers = ("--scheduler.workers", n_workers)
    with serve(shell, folder, *workers) as process:
        process.url()
    flip_a_bit(folder / "tokenizer.json")
    with serve(shell, folder, *workers) as process:
        assert_refused(process, "tokenizer.json", "manifest")


def test_row_36_a_second_start_with_a_broken_model_says_what_is_wrong(
    shell: Shell, converted: Path
) -> None:
    with serve(shell, converted) as process:
        process.url()
    largest = max(converted.rglob("*"), key=lambda path: path.stat().st_size)
    flip_a_bit(largest)
    with serve(shell, converted) as process:
        assert_refused(process, largest.name, "manifest")


def test_row_37_without_cuda_the_cpu_is_taken_unless_cuda_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, cache_dir: Path
) -> None:
    from tamis.engine.ctranslate2 import runtime as ctranslate2

    monkeypatch.setattr(ctranslate2, "cuda_available", lambda: False)
    own = {"name": str(tiny_model), "cache_dir": cache_dir, "threads": 1}
    with serving(Settings.model_validate({"model": own})) as server:
        assert server.client.get("/readyz").json()["device"] == "cpu"
    with serving(Settings.model_validate({"model": own | {"device": "cuda"}})) as server:
        assert server.client.get("/readyz").status_code == 503
        assert isinstance(server.life.failure, RuntimeUnavailableError)
        assert "no CUDA device" in str(server.life.failure)


def lost(_: object) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_row_37_a_gpu_that_is_lost_is_stood_in_for_by_the_cpu() -> None:
    gpu, cpu = FaultyBackend(place=Place("cuda", "float16")), FaultyBackend()
    with serving_on(gpu, on_cpu=cpu, cache={}) as server:
        assert server.rerank("q", ["before"]).status_code == 200
        gpu._before_forward = lost
        answers = [server.rerank("q", ["a", "b"]) for _ in range(6)]
        lost_to = FAILURES_UNTIL_STAND_IN - 1
        assert [one.status_code for one in answers] == [503] * lost_to + [200] * 4
        for refused in answers[:lost_to]:
            assert refused.json()["code"] == "device_lost"
            assert int(refused.headers["retry-after"]) >= 1
        answer = server.rerank("q", ["a", "b"])
        assert logits_of(answer.json()) == alone("q", ["a", "b"])
        assert gpu.closed
        ready = server.client.get("/readyz")
        assert (ready.status_code, ready.json()["degraded"]) == (200, "stand_in")
        assert server.metric("tamis_degraded") == 1
        assert server.metric("tamis_stand_ins_total") == 1
        assert server.metric("tamis_cache_entries", store="memory") == 1  # "before"


def test_row_38_a_model_that_scores_as_it_did_starts_again(shell: Shell, converted: Path) -> None:
    for _ in range(2):
        with serve(shell, converted) as process:
            process.url()
    (golden,) = json.loads((converted / GOLDEN_FILE).read_text()).values()
    assert len(golden) == 3


def test_row_38_a_model_that_scores_something_else_is_refused_with_78(
    shell: Shell, converted: Path
) -> None:
    with serve(shell, converted) as process:
        process.url()
    path = converted / GOLDEN_FILE
    golden = {
        key: [logit + 0.01 for logit in logits]
        for key, logits in json.loads(path.read_text()).items()
    }
    path.write_text(json.dumps(golden))
    with serve(shell, converted) as process:
        assert_refused(process, "does not score as it should", "float32")


def test_row_38_the_embedded_model_is_compared_with_golden_pairs_at_its_first_start_too(
    shell: Shell, tmp_path: Path
) -> None:
    carried = Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "model"))
    golden = read_golden(carried)
    assert golden
    write_golden(carried, {key: [one + 0.01 for one in logits] for key, logits in golden.items()})
    with serve(shell, carried) as process:
        assert_refused(process, "does not score as it should", "float32")
    converted = convert(read_checkpoint(carried), tmp_path / "converted", dtype="float32")
    with serve(shell, converted) as process:  # they go along
        assert_refused(process, "does not score as it should", "float32")


SOURCE = Path(tamis.__file__).parent
DATES = {"environment.py", "spans.py", "request_log.py", "baseline.py"}
"""Write down when something was: a figure, a span, a request, a baseline."""
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}


def test_row_39_no_duration_and_no_deadline_is_read_off_the_wall_clock() -> None:
    calls = [
        f"{path.name}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        if path.name not in DATES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCKS
    ]
    assert calls == []


class JumpingProcess(DoubleServer):
    """A server of doubles whose wall clock can be set."""

    def __init__(self, offset: Path, *arguments: str) -> None:
        self._offset = offset
        offset.write_text("+0")
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        assert libraries, "libfaketime is not installed: `make system`"
        environment = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # no administrator can set that one either
            "DONT_FAKE_MONOTONIC": "1",
        }
        super().__init__(*arguments, environment=environment)

    def jump(self, days: int) -> None:
        """Set the clock."""
        self._offset.write_text(f"{days:+d}d")

    def day_of_the_last_line(self) -> datetime:
        """When it was written, as the server thinks."""
        return datetime.fromisoformat(self.events[-1]["timestamp"])


@pytest.mark.parametrize("days", [-400, 400])
def test_row_39_a_clock_that_jumps_ends_no_deadline(tmp_path: Path, days: int) -> None:
    own = ["--batch-seconds", "0.3", "--server.port", "0", "--scheduler.max-batch-tokens", "6"]
    own += ["--cache.memory-bytes", "0"]
    with JumpingProcess(tmp_path / "offset", *own) as process, ThreadPoolExecutor(2) as pool:
        url = process.url()

        def ask(n_documents: int, timeout_ms: int) -> httpx2.Response:
            texts = [f"a{n}" for n in range(n_documents)]
            body = {"query": "q", "documents": texts, "timeout_ms": timeout_ms}
            return httpx2.post(f"{url}/rerank", json=body, timeout=60)

        assert ask(1, 60_000).status_code == 200
        before = process.day_of_the_last_line()
        running = pool.submit(ask, 8, 30_000)  # 2.4 s
        late = pool.submit(ask, 8, 1_000)
        time.sleep(0.6)
        process.jump(days)
        assert late.result().status_code == 504
        assert running.result().status_code == 200
        assert ask(1, 60_000).status_code == 200
        assert httpx2.get(f"{url}/livez").status_code == 200
        until(lambda: process.events[-1].get("status") == 200)
        after = process.day_of_the_last_line()
    assert abs((after - before).days) > 300  # it did jump


class LimitedProcess(Process):
    """`tamis serve` under a limit of the shell's `ulimit`."""

    def __init__(self, shell: Shell, limit: str, *arguments: str, **environment: str) -> None:
        self._limit = limit
        super().__init__(*arguments, environment=shell.environment | environment)

    def command(self, *arguments: str) -> list[str]:
        """See `Process.command`."""
        return ["bash", "-c", f'ulimit {self._limit}; exec "$@"', "-", *super().command(*arguments)]


def test_row_40_nothing_can_be_written_and_it_starts(shell: Shell, converted: Path) -> None:
    """No byte of any file (as on a full disk), no home, no cache."""
    nowhere = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "HF_HOME": "/proc/none"}
    own = ("--model.name", str(converted), "--server.port", "0", "--model.threads", "1")
    with LimitedProcess(shell, "-f 0", *own, **nowhere) as process:
        url = process.url()
        answer = httpx2.post(f"{url}/rerank", json={"query": "a panda", "documents": ["a bear"]})
        assert answer.status_code == 200
        assert "cannot store the golden logits" in process.log
    assert not (converted / GOLDEN_FILE).exists()


def test_row_40_a_cache_that_cannot_be_written_costs_a_conversion_at_each_start(
    shell: Shell, tiny_model: Path
) -> None:
    nowhere = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}
    with serve(shell, tiny_model, **nowhere) as process:
        process.url()
        assert "cannot store the converted model" in process.log


@pytest.fixture
def few_files(shell: Shell, tiny_model: Path) -> Iterator[LimitedProcess]:
    """A server that may open few files, and so few connections."""
    own = ("--model.name", str(tiny_model), "--server.port", "0", "--model.threads", "1")
    with LimitedProcess(shell, "-n 64", *own) as process:
        yield process
        process.terminate()
        assert process.wait() == 0
        assert "out of system resource" not in process.log
        assert len(process.lines) < 60


def callers_of(url: str, n_callers: int, stack: ExitStack) -> list[socket.socket]:
    """Connections that are closed with the stack."""
    host, _, port = url.removeprefix("http://").partition(":")
    return [
        stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(n_callers)
    ]


def test_row_41_idle_connections_make_room_for_those_who_ask(few_files: LimitedProcess) -> None:
    url = few_files.url()
    body = {"query": "a panda", "documents": ["a bear"]}
    limit = int(sample(httpx2.get(f"{url}/metrics").text, "tamis_connections_limit"))
    assert 8 <= limit <= 40
    with ExitStack() as stack:
        callers_of(url, 200, stack)
        for _ in range(5):
            assert httpx2.post(f"{url}/rerank", json=body, timeout=10).status_code == 200
            text = httpx2.get(f"{url}/metrics", timeout=10).text
            assert sample(text, "tamis_connections") <= limit
            assert sample(text, "process_open_fds") < 64


def test_row_41_where_all_connections_are_at_work_others_wait(few_files: LimitedProcess) -> None:
    url = few_files.url()
    limit = int(sample(httpx2.get(f"{url}/metrics").text, "tamis_connections_limit"))
    with ExitStack() as stack:
        for caller in callers_of(url, limit + 20, stack):
            caller.sendall(b"POST /rerank HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        until(lambda: "connections are taken" in few_files.log)
        before = cpu_seconds(few_files.pid)
        with pytest.raises(httpx2.TimeoutException):
            httpx2.get(f"{url}/livez", timeout=1.5)
        assert cpu_seconds(few_files.pid) - before < 0.75  # it does not spin
    assert httpx2.get(f"{url}/livez", timeout=10).status_code == 200


def cpu_seconds(pid: int) -> float:
    """Time of all its threads on a core."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


BAD_SETTINGS = {
    "a variable of the wrong type": ([], {"TAMIS_SERVER__PORT": "http"}, "server.port"),
    "an unknown variable": ([], {"TAMIS_SERVER__PROT": "1"}, "TAMIS_SERVER__PROT"),
    "an unknown option": (["--server.prot", "1"], {}, "--server.prot"),
    "an option without its value": (["--server.port"], {}, "--server.port"),
    "a value out of range": (["--server.port", "70000"], {}, "server.port"),
    "no choice of ours": (["--model.device", "tpu"], {}, "model.device"),
    "an infinite time": (["--server.timeout-seconds", "inf"], {}, "server.timeout_seconds"),
    "more tokens than the model reads": (["--model.max-length", "4096"], {}, "model.max_length"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_row_44_settings_that_cannot_be_are_refused_by_name(
    shell: Shell, tiny_model: Path, case: str
) -> None:
    arguments, environment, name = BAD_SETTINGS[case]
    options = ["--model.name", str(tiny_model), *arguments]
    with shell.serve(*options, **environment) as process:
        assert_refused(process, name)
