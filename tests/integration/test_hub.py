"""The real client of the Hugging Face hub, in processes of its own, against a local server."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from huggingface_hub import constants

from tests.hub_server import Hub, Repository, running_hub

NAME = "tamis-tests/tiny"
CHUNK_BYTES = constants.DOWNLOAD_CHUNK_SIZE  # the client writes what it got in such pieces
LOCATE = """
import json, sys
from tamis.engine.hub.local_cache import list_fetched
from tamis.engine.location import locate, pull
from tamis.errors import TamisError
verb, name, revision, offline = json.loads(sys.argv[1])
try:
    found = list_fetched() if verb == "list" else (
        pull(name, revision=revision, offline=offline) if verb == "pull"
        else locate(name, revision=revision, offline=offline)
    )
    print(json.dumps({"found": str(found)}))
except TamisError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


class Outcome(NamedTuple):
    """What a process of the client's came to: a folder, or an error and its sentence."""

    folder: Path | None
    error: str | None
    message: str


class Client:
    """Runs `tamis.engine.hub` in new processes that share one cache."""

    def __init__(self, endpoint: str, home: Path) -> None:
        self.endpoint = endpoint
        self.home = home

    def run(
        self,
        verb: str = "locate",
        name: str = NAME,
        *,
        revision: str | None = None,
        offline: bool = False,
        **environment: str,
    ) -> Outcome:
        """Call a function of `tamis.engine.hub` and report what it returned or raised."""
        ours = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        arguments = json.dumps([verb, name, revision, offline])
        finished = subprocess.run(
            [sys.executable, "-c", LOCATE, arguments],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | ours | quiet | environment,
        )
        assert finished.returncode == 0, finished.stderr
        outcome = json.loads(finished.stdout.splitlines()[-1])
        found = outcome.get("found")
        return Outcome(Path(found) if found else None, outcome.get("error"), str(outcome))

    def pulled(self, **options: str) -> Path:
        """Fetch the model and return its folder."""
        outcome = self.run(**options)  # type: ignore[arg-type]  # options of several types
        assert outcome.folder is not None, outcome.message
        return outcome.folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub without repositories."""
    with running_hub() as hub:
        yield hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    """A client of the hub with an empty cache."""
    return Client(hub.endpoint, tmp_path / "huggingface")


@pytest.fixture
def files(tiny_model: Path) -> dict[str, bytes]:
    """The files of the tiny reranker, and some that no reranker needs."""
    own = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    return own | {"README.md": b"# tiny", "pytorch_model.bin": b"x" * 2000, "onnx/model.onnx": b"x"}


@pytest.fixture
def repository(hub: Hub, files: dict[str, bytes]) -> Repository:
    """The repository of the tiny reranker, with one commit on main."""
    repository = hub.repositories[NAME] = Repository()
    repository.commit(files, "main")
    return repository


@pytest.fixture
def large_repository(hub: Hub, files: dict[str, bytes]) -> bytes:
    """The weights of a repository that arrive in several pieces."""
    weights = bytes(range(256)) * (CHUNK_BYTES // 200)
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit(files | {"model.safetensors": weights}, "main")
    return weights


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_name_is_fetched_at_first_use(
    client: Client, hub: Hub, repository: Repository, files: dict[str, bytes]
) -> None:
    folder = client.pulled()

    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (folder / name).read_bytes() == files[name]
    assert len(hub.downloads("/storage/")) > 0


def test_only_what_a_reranker_needs_is_fetched(
    client: Client, hub: Hub, repository: Repository
) -> None:
    folder = client.pulled()

    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tamis-manifest.json",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("revision", [None, "main", "commit"])
def test_the_second_use_asks_no_network(
    client: Client, hub: Hub, repository: Repository, revision: str | None
) -> None:
    wanted = repository.names["main"] if revision == "commit" else revision
    first = client.run(revision=wanted)
    hub.requests.clear()

    assert client.run(revision=wanted) == first
    assert first.folder is not None
    assert hub.requests == []


def test_a_fetched_model_is_used_when_the_hub_is_gone(
    client: Client, repository: Repository
) -> None:
    first = client.run()
    client.endpoint = "http://127.0.0.1:9"

    assert client.run() == client.run(offline=True) == first


@pytest.mark.parametrize("name", ["main", "v1.0", "feature/sieve", "commit"])
def test_a_revision_may_be_a_branch_a_tag_or_a_commit(
    client: Client, repository: Repository, files: dict[str, bytes], name: str
) -> None:
    older = repository.names["main"]
    newer = repository.commit(files | {"tamis.json": b'{"name": "newer"}'}, "main")
    repository.names |= {"v1.0": older, "feature/sieve": older}
    expected = newer if name == "main" else older

    folder = client.pulled(revision=older if name == "commit" else name)

    assert folder.name == expected
    assert (folder / "tamis.json").exists() == (expected == newer)


def test_pulling_again_fetches_what_is_new_and_only_that(
    client: Client, hub: Hub, repository: Repository, files: dict[str, bytes]
) -> None:
    client.pulled()
    repository.commit(files | {"tamis.json": b'{"name": "newer"}'}, "main")
    hub.requests.clear()

    pulled = client.run("pull")

    assert pulled.folder is not None
    assert (pulled.folder / "tamis.json").exists()
    assert hub.downloads("/storage/") == []
    assert client.run() == pulled


def test_a_lost_connection_is_resumed_where_it_broke(
    client: Client, hub: Hub, large_repository: bytes
) -> None:
    hub.broken_after = CHUNK_BYTES + 7

    folder = client.pulled()

    assert (folder / "model.safetensors").read_bytes() == large_repository
    first, rest = (line for line in hub.downloads("/storage/") if _sha256(large_repository) in line)
    assert "bytes" not in first
    assert rest.endswith(f"bytes={CHUNK_BYTES}-")


def test_a_failed_download_is_taken_up_again_and_whole_files_are_kept(
    client: Client, hub: Hub, large_repository: bytes
) -> None:
    hub.broken_after, hub.refuses_rest = CHUNK_BYTES + 7, True
    interrupted, offline = client.run(), client.run(offline=True)
    hub.broken_after, hub.refuses_rest = None, False
    hub.requests.clear()

    folder = client.pulled()

    assert interrupted.error == offline.error == "HubUnreachableError"
    assert "503" in interrupted.message
    assert (folder / "model.safetensors").read_bytes() == large_repository
    (again,) = hub.downloads("/storage/") + hub.downloads("/resolve/")
    assert _sha256(large_repository) in again


def test_offline_looks_at_local_files_only(
    client: Client, hub: Hub, repository: Repository
) -> None:
    outcome = client.run(offline=True)

    assert outcome.error == "HubUnreachableError"
    assert "offline" in outcome.message
    assert "tamis models pull" in outcome.message
    assert hub.requests == []


def test_the_clients_own_offline_switch_counts_too(
    client: Client, hub: Hub, repository: Repository
) -> None:
    assert client.run(HF_HUB_OFFLINE="1").error == "HubUnreachableError"
    assert hub.requests == []


def test_offline_takes_a_whole_model_that_another_program_fetched(
    client: Client, hub: Hub, repository: Repository
) -> None:
    folder = client.pulled()
    (folder / "tamis-manifest.json").unlink()

    assert client.run(offline=True).folder == folder


def test_a_model_that_another_program_fetched_serves_while_the_hub_is_down(
    client: Client, repository: Repository
) -> None:
    folder = client.pulled()
    (folder / "tamis-manifest.json").unlink()
    client.endpoint = "http://127.0.0.1:9"

    assert client.run().folder == folder


def test_without_a_network_one_sentence_says_so(client: Client) -> None:
    client.endpoint = "http://127.0.0.1:9"

    outcome = client.run()

    assert outcome.error == "HubUnreachableError"
    assert f"{NAME} is not on this machine, and http://127.0.0.1:9 does not" in outcome.message


@pytest.mark.parametrize("status", [500, 429])
def test_a_hub_in_trouble_is_unreachable(client: Client, hub: Hub, status: int) -> None:
    hub.trouble = status

    outcome = client.run()

    assert outcome.error == "HubUnreachableError"
    assert str(status) in outcome.message


def test_a_repository_that_is_not_there_is_not_found(client: Client, hub: Hub) -> None:
    outcome = client.run(name="tamis-tests/none")

    assert outcome.error == "ModelNotFoundError"
    assert "no folder and no repository tamis-tests/none" in outcome.message


def test_a_revision_that_is_not_there_is_not_found(client: Client, repository: Repository) -> None:
    outcome = client.run(revision="v9")

    assert outcome.error == "ModelNotFoundError"
    assert f"{NAME} has no revision v9" in outcome.message


def test_a_gated_repository_says_how_to_get_in(client: Client, repository: Repository) -> None:
    repository.gated = True

    outcome = client.run()

    assert outcome.error == "ModelNotFoundError"
    assert "gated" in outcome.message
    assert "hf auth login" in outcome.message


@pytest.mark.parametrize(
    ("left_out", "error"),
    [
        ("model.safetensors", "UnsafeModelError"),
        ("model.safetensors pytorch_model.bin", "IncompleteModelError"),
    ],
)
def test_a_repository_without_safe_weights_is_refused_before_anything_is_fetched(
    client: Client, hub: Hub, files: dict[str, bytes], left_out: str, error: str
) -> None:
    hub.repositories[NAME] = Repository()
    kept = {name: data for name, data in files.items() if name not in left_out.split()}
    hub.repositories[NAME].commit(kept, "main")

    outcome = client.run()

    assert outcome.error == error
    assert not any("/resolve/" in request for request in hub.requests)


def test_a_file_that_is_not_what_the_hub_describes_is_refused_and_thrown_away(
    client: Client, repository: Repository, files: dict[str, bytes]
) -> None:
    repository.described = {"model.safetensors": "0" * 64}
    outcome = client.run()
    offline = client.run(offline=True)
    repository.described = {}
    mended = client.run()

    assert outcome.error == "ChecksumMismatchError"
    assert "model.safetensors" in outcome.message
    assert offline.error == "HubUnreachableError"
    assert mended.folder is not None
    assert (mended.folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_file_that_changed_after_it_was_fetched_is_found_at_load(
    client: Client, repository: Repository
) -> None:
    from tamis.engine.manifest import verify_manifest
    from tamis.errors import ChecksumMismatchError

    folder = client.pulled()
    assert verify_manifest(folder) == 3
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.resolve().write_bytes(data)

    with pytest.raises(ChecksumMismatchError, match=r"model\.safetensors"):
        verify_manifest(folder)


def test_shards_are_fetched(client: Client, hub: Hub, tmp_path: Path) -> None:
    from tests.tiny_models import save_classifier

    folder = save_classifier(tmp_path / "sharded", "bert", shards="20KB")
    hub.repositories[NAME] = Repository()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repositories[NAME].commit(files, "main")

    fetched = client.pulled()

    assert {path.name for path in folder.iterdir()} <= {path.name for path in fetched.iterdir()}
    assert len(list(fetched.glob("model-*.safetensors"))) > 1


def test_fetched_models_are_listed(client: Client, repository: Repository) -> None:
    before = client.run("list")
    client.pulled()

    assert "'found': '[]'" in before.message
    assert repository.names["main"] in client.run("list").message


def test_a_fetched_model_scores(client: Client, repository: Repository, cache_dir: Path) -> None:
    from tamis.engine.loading import load_model
    from tamis.settings import ModelSettings

    folder = client.pulled()
    model = load_model(ModelSettings(name=str(folder), cache_dir=cache_dir))
    shutil.rmtree(client.home)

    pairs = model.tokenizer.encode("what is a panda?", ["hi", "a bear"])
    assert model.backend.forward(pairs).shape == (2,)


@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks://127.0.0.1:9"},
        {"ALL_PROXY": "what?"},
        {"SSL_CERT_FILE": "/nowhere.pem"},
        {"HF_TOKEN": "schlüssel"},
        {"HF_HUB_ETAG_TIMEOUT": "soon"},
    ],
)
def test_what_is_here_loads_whatever_the_client_is_told(
    client: Client, repository: Repository, variables: dict[str, str]
) -> None:
    folder = client.pulled()
    (folder / "tamis-manifest.json").unlink()
    client.endpoint = "https://127.0.0.1:9"

    assert client.run(**variables).folder == folder
    refused = client.run(name="tamis-tests/none", **variables)
    assert refused.error in ("SettingsError", "HubUnreachableError")


@pytest.mark.parametrize("status", [401, 403, 404, 407, 429, 500])
def test_a_hub_in_trouble_is_a_sentence(client: Client, hub: Hub, status: int) -> None:
    hub.trouble = status

    assert client.run().error in ("ModelNotFoundError", "HubUnreachableError")


def test_offline_by_variable_does_not_say_that_the_hub_does_not_answer(client: Client) -> None:
    message = client.run(HF_HUB_OFFLINE="1").message

    assert "HF_HUB_OFFLINE" in message
    assert "does not answer" not in message


def test_no_weights_are_fetched_of_a_model_that_tamis_does_not_run(
    client: Client, hub: Hub, files: dict[str, bytes]
) -> None:
    config = json.loads(files["config.json"]) | {"architectures": ["GPT2Model"]}
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit(files | {"config.json": json.dumps(config).encode()}, "main")

    assert client.run().error == "UnsupportedModelError"
    assert not any("model.safetensors" in request for request in hub.requests)


def test_a_failed_pull_leaves_the_commit_that_was_here(
    client: Client, hub: Hub, repository: Repository, files: dict[str, bytes]
) -> None:
    folder = client.pulled()
    repository.commit(files | {"config.json": b"{}"}, "main")

    assert client.run("pull").error == "UnsupportedModelError"
    assert client.run().folder == folder


def test_files_are_compared_with_the_hub_where_no_manifest_can_be_written(
    client: Client, repository: Repository
) -> None:
    folder = client.pulled()
    (folder / "tamis-manifest.json").unlink()
    (folder / "tamis-manifest.json").mkdir()
    assert client.run("pull").folder == folder

    repository.described = {"model.safetensors": "0" * 64}
    outcome = client.run("pull")

    assert outcome.error == "ChecksumMismatchError"
    assert "was deleted" in outcome.message
    assert not (folder / "model.safetensors").exists()


def test_a_pull_that_fails_does_not_deny_the_copy_that_is_here(
    client: Client, repository: Repository
) -> None:
    client.pulled()
    client.endpoint = "http://127.0.0.1:9"

    for outcome in (client.run("pull"), client.run("pull", offline=True)):
        assert outcome.error == "HubUnreachableError"
        assert f"{NAME} is on this machine as it was last fetched" in outcome.message
        assert "not on this machine" not in outcome.message
