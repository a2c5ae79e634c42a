"""The Hugging Face hub's cache on this machine, read without the hub's client.

No setting of the client, and nothing on the way to the hub, keeps a model that is here from being
found. The layout is that of the hub's documentation: `models--ORG--NAME/refs/REVISION` holds a
commit, `snapshots/COMMIT` links to the files.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tamis.engine.checkpoint import CONFIG_FILE, read_checkpoint, weight_files
from tamis.engine.manifest import MANIFEST_FILE
from tamis.errors import ModelError

_COMMIT = re.compile("[0-9a-f]{40}")
DEFAULT_REVISION = "main"


def cache_folder() -> Path:
    """Where the hub's clients keep models; a temporary folder for a user without a home."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return _expanded(named)
    home = os.environ.get("HF_HOME")
    if home:
        return _expanded(home) / "hub"
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def repository_folder(name: str) -> Path:
    """Where the cache keeps a repository."""
    return cache_folder() / f"models--{name.replace('/', '--')}"


def find_fetched(name: str, *, revision: str | None) -> Path | None:
    """The folder of a model that is here as a whole, whatever program fetched it.

    Without a manifest, it is whole if tamis would run it.

    Args:
        name: A repository.
        revision: Its branch, tag or commit; None for the default branch.
    """
    repository = repository_folder(name)
    try:
        commit = _commit(repository, revision or DEFAULT_REVISION)
        folder = repository / "snapshots" / commit
        if (folder / MANIFEST_FILE).is_file():
            return folder
        return folder if _is_whole(folder) else None
    except (OSError, ValueError):  # ValueError: a name or revision that no file can have
        return None


def whether_here(name: str, revision: str | None) -> str:
    """The beginning of a sentence about a model that cannot be fetched."""
    if find_fetched(name, revision=revision) is None:
        return f"{name} is not on this machine"
    return f"{name} is on this machine as it was last fetched"


def list_fetched() -> list[tuple[str, str, Path]]:
    """Name, commit and folder of every model that was fetched by `tamis models pull`."""
    return sorted(_with_manifest(cache_folder()))


def point_to(name: str, revision: str | None, folder: Path) -> None:
    """Have a branch or tag stand for a snapshot, as other programs with this cache read it.

    Raises:
        OSError: the cache cannot be written to.
    """
    wanted = revision or DEFAULT_REVISION
    if wanted != folder.name:
        reference = repository_folder(name) / "refs" / wanted
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(folder.name, encoding="utf-8")


def _expanded(folder: str) -> Path:
    try:
        return Path(os.path.expandvars(folder)).expanduser()
    except RuntimeError:  # a user without a home, as containers have them
        return Path(tempfile.gettempdir())


def _commit(repository: Path, revision: str) -> str:
    if _COMMIT.fullmatch(revision):
        return revision
    commit = (repository / "refs" / revision).read_text(encoding="utf-8").strip()
    if not _COMMIT.fullmatch(commit):
        raise ValueError(f"{revision} is no commit: {commit}")
    return commit


def _is_whole(folder: Path) -> bool:
    if not (folder / CONFIG_FILE).is_file():
        return False
    # now: numpy and tokenizers are much to import for a list of names
    from tamis.engine.heads.reading import read_head

    try:
        read_head(read_checkpoint(folder))
        return all(path.is_file() for path in weight_files(folder))
    except ModelError:
        return False


def _with_manifest(cache: Path) -> Iterator[tuple[str, str, Path]]:
    for manifest in cache.glob(f"models--*/snapshots/*/{MANIFEST_FILE}"):
        folder = manifest.parent
        name = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        yield name, folder.name, folder
