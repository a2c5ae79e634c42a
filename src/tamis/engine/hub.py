"""Repositories of the Hugging Face Hub: the one place that may reach a network.

Files are fetched by `huggingface_hub` into its own cache (shared with other tools). A lost
connection is resumed where it broke; a pull that failed keeps the files that came whole. What was
fetched is compared with the hub's sha256 and listed in a manifest beside it.
"""

from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, scan_cache_dir, snapshot_download
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo

from tamis.engine.checkpoint import (
    CONFIG_FILE,
    PICKLED_SUFFIXES,
    TAMIS_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
)
from tamis.engine.manifest import MANIFEST_FILE, write_manifest
from tamis.errors import (
    ChecksumMismatchError,
    HubUnreachableError,
    IncompleteModelError,
    ModelNotFoundError,
    UnsafeModelError,
)

TIMEOUT_SECONDS = 10.0

_WANTED = [
    CONFIG_FILE,
    TOKENIZER_FILE,
    TAMIS_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    "model-*-of-*.safetensors",
]


def find_fetched(name: str, *, revision: str | None, verified: bool = True) -> Path | None:
    """The folder of a model that was fetched as a whole before; asks no network.

    Args:
        name: A repository.
        revision: Its branch, tag or commit; None for the default branch.
        verified: Pass over one without a manifest, which another program has fetched.
    """
    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, local_files_only=True, allow_patterns=_WANTED
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if (folder / MANIFEST_FILE).exists() or not verified else None


def pull(name: str, *, revision: str | None, offline: bool = False) -> Path:
    """Fetch a model, newest commit of its revision, and write its manifest.

    Raises:
        HubUnreachableError: the hub cannot or may not be asked.
        ModelNotFoundError: there is no such repository or revision, or it is not open to you.
        UnsafeModelError: it offers pickled weights only.
        ChecksumMismatchError: a fetched file is not what the hub says it is.
    """
    if offline:
        raise HubUnreachableError(
            f"{name} is not on this machine, and the hub may not be asked (offline); "
            f"run `tamis models pull {name}` where there is a network"
        )
    try:
        _require_safetensors(name, _ask(name, revision))
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED))
        info = _ask(name, folder.name)  # of the commit that came, should a branch have moved
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelNotFoundError(_not_found(name, revision, error)) from error
    except HFValidationError as error:
        raise ModelNotFoundError(f"{name} is no name of a repository: {error}") from error
    except (httpx2.TransportError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise HubUnreachableError(
            f"{name} is not on this machine, and {constants.ENDPOINT} does not answer; "
            "check the network, or give a local folder"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise HubUnreachableError(f"{constants.ENDPOINT} answered {status} for {name}") from error
    _finish(folder, info)
    return folder


def list_fetched() -> list[tuple[str, str, Path]]:
    """Name, commit and folder of every model that was fetched by `pull`."""
    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return []
    return sorted(
        (repo.repo_id, revision.commit_hash, revision.snapshot_path)
        for repo in cache.repos
        for revision in repo.revisions
        if (revision.snapshot_path / MANIFEST_FILE).exists()
    )


def _ask(name: str, revision: str | None) -> ModelInfo:
    return HfApi().model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS)


def _require_safetensors(name: str, info: ModelInfo) -> None:
    files = [sibling.rfilename for sibling in info.siblings or []]
    if WEIGHTS_FILE in files or WEIGHTS_INDEX_FILE in files:
        return
    pickled = [file for file in files if file.endswith(PICKLED_SUFFIXES)]
    if pickled:
        raise UnsafeModelError(
            f"{name} offers pickled weights only ({', '.join(pickled)}), which can run code "
            f"when they are read; tamis reads {WEIGHTS_FILE}"
        )
    raise IncompleteModelError(f"{name} has no {WEIGHTS_FILE}")


def _finish(folder: Path, info: ModelInfo) -> None:
    """Compare with the hub's digests and write the manifest; throw away what differs."""
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    found = write_manifest(folder)
    for sibling in info.siblings or []:
        digest = found.get(sibling.rfilename)
        if digest and sibling.lfs and sibling.lfs.sha256 != digest:
            (folder / MANIFEST_FILE).unlink()
            (folder / sibling.rfilename).resolve().unlink()
            (folder / sibling.rfilename).unlink(missing_ok=True)
            raise ChecksumMismatchError(
                f"{sibling.rfilename} of {info.id} is not the file that the hub describes, and "
                "was thrown away; pull the model again"
            )


def _not_found(name: str, revision: str | None, error: HfHubHTTPError) -> str:
    if isinstance(error, GatedRepoError):
        return f"{name} is gated: accept its terms on the hub and log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {revision}"
    return f"there is no folder and no repository {name} (or it is private: `hf auth login`)"
