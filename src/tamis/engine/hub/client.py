"""Repositories of the Hugging Face Hub: the one place that may reach a network.

Files are fetched by `huggingface_hub` into its own cache (shared with other tools), descriptions
first and weights only once tamis is known to run them. A lost connection is resumed where it broke;
a pull that failed keeps the files that came whole, and the commit that was fetched before. What was
fetched is compared with the hub's sha256 and listed in a manifest next to it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, get_session, snapshot_download
from huggingface_hub.hf_api import ModelInfo

from tamis.engine.checkpoint import (
    CONFIG_FILE,
    PICKLED_SUFFIXES,
    TAMIS_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    read_checkpoint,
    shard_names,
)
from tamis.engine.files import JSON_BYTES, LARGEST_BYTES
from tamis.engine.heads.reading import read_head
from tamis.engine.hub.failures import as_sentences, require_usable_token, setting_up
from tamis.engine.hub.local_cache import cache_folder, point_to, whether_here
from tamis.engine.manifest import MANIFEST_FILE, hash_files, write_manifest
from tamis.errors import (
    ChecksumMismatchError,
    HubUnreachableError,
    IncompleteModelError,
    UnsafeModelError,
)

logger = logging.getLogger(__name__)

_DESCRIPTIONS = [CONFIG_FILE, TAMIS_FILE, WEIGHTS_INDEX_FILE]


def pull(name: str, *, revision: str | None, offline: bool = False) -> Path:
    """Fetch a model, newest commit of its revision, and write its manifest.

    Raises:
        HubUnreachableError: the hub cannot or may not be asked.
        ModelNotFoundError: there is no such repository or revision, or it is not open to you.
        ModelError: tamis does not run it; no weights were fetched.
        ChecksumMismatchError: a fetched file is not what the hub says it is.
        SettingsError: a proxy, certificate, token or folder that was set cannot be used.
    """
    if offline or constants.HF_HUB_OFFLINE:
        reason = "offline" if offline else "HF_HUB_OFFLINE"
        raise HubUnreachableError(
            f"{whether_here(name, revision)}, and the hub may not be asked ({reason}); "
            f"run `tamis models pull {name}` where there is a network"
        )
    require_usable_token()
    with setting_up():
        get_session().timeout = constants.HF_HUB_ETAG_TIMEOUT  # else it waits forever
    with as_sentences(name, revision):
        info = HfApi().model_info(
            name,
            revision=revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        commit = str(info.sha)
    _require_files(name, sizes)
    folder = _fetch(name, revision, commit, _DESCRIPTIONS)
    read_head(read_checkpoint(folder, described_only=True))
    _fetch(name, revision, commit, [*_DESCRIPTIONS, TOKENIZER_FILE, *_weights(folder, sizes)])
    with as_sentences(name, revision):
        _finish(folder, info)
        point_to(name, revision, folder)
    return folder


def _fetch(name: str, revision: str | None, commit: str, files: Sequence[str]) -> Path:
    with as_sentences(name, revision):
        return Path(
            snapshot_download(
                name, revision=commit, cache_dir=cache_folder(), allow_patterns=list(files)
            )
        )


def _require_files(name: str, sizes: dict[str, int]) -> None:
    """Refuse a repository by what it lists, before anything is fetched."""
    if WEIGHTS_FILE not in sizes and WEIGHTS_INDEX_FILE not in sizes:
        pickled = [file for file in sizes if file.endswith(PICKLED_SUFFIXES)]
        if pickled:
            raise UnsafeModelError(
                f"{name} has only pickled weights ({', '.join(pickled)}), which can run code "
                f"when they are read; tamis reads {WEIGHTS_FILE}"
            )
        raise IncompleteModelError(f"{name} has no {WEIGHTS_FILE}")
    for file in (CONFIG_FILE, TOKENIZER_FILE):
        if file not in sizes:
            raise IncompleteModelError(f"{name} has no {file}")
    for file in (*_DESCRIPTIONS, TOKENIZER_FILE):
        most = LARGEST_BYTES.get(file, JSON_BYTES)
        if sizes.get(file, 0) > most:
            raise UnsafeModelError(
                f"{file} of {name} has {sizes[file]:,} bytes, and may have at most {most:,}"
            )


def _weights(folder: Path, sizes: dict[str, int]) -> list[str]:
    """The repository's safetensors files: one, or the shards that its index names."""
    if WEIGHTS_FILE in sizes:
        return [WEIGHTS_FILE]
    names = shard_names(folder)
    missing = [name for name in names if name not in sizes]
    if missing or not names:
        raise IncompleteModelError(
            f"the repository lacks {', '.join(missing) or 'the shards'} of its {WEIGHTS_INDEX_FILE}"
        )
    return names


def _finish(folder: Path, info: ModelInfo) -> None:
    """Compare with the hub's digests, throw away what differs, and write the manifest."""
    found = hash_files(folder)
    for sibling in info.siblings or []:
        digest = found.get(sibling.rfilename)
        if digest and sibling.lfs and sibling.lfs.sha256 != digest:
            raise ChecksumMismatchError(
                f"{sibling.rfilename} of {info.id} is not the file that the hub describes, and "
                f"{_discard(folder, sibling.rfilename)}; pull the model again"
            )
    try:
        write_manifest(folder, found)
    except OSError as error:
        logger.warning("cannot store a manifest in %s: %s", folder, error)


def _discard(folder: Path, name: str) -> str:
    """Remove a corrupt file and its manifest; returns what happened."""
    path = folder / name
    try:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
    except OSError as error:
        if path.exists():
            return f"cannot be deleted ({error}): delete {path.resolve()}"
    return "was deleted"
