"""sha256 of a model's files: written when they are fetched or made, checked at load."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from tamis.engine.checkpoint import model_files
from tamis.engine.files import file_digests, read_struct
from tamis.errors import ChecksumMismatchError, IncompleteModelError, UnsafeModelError

MANIFEST_FILE = "tamis-manifest.json"
_SHA256 = re.compile("[0-9a-f]{64}")


class _Manifest(msgspec.Struct, frozen=True):
    sha256: dict[str, str]


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every file in a folder but its prose, by relative path."""
    return file_digests(folder, _files(folder))


def write_manifest(folder: Path, digests: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write the sha256 of a folder's files, hashed now unless they were before; returns them."""
    written = hash_files(folder) if digests is None else dict(digests)
    text = json.dumps({"sha256": written}, indent=2, sort_keys=True)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    return written


def read_manifest(folder: Path) -> dict[str, str] | None:
    """Digests by relative path; None where a folder has no manifest.

    Raises:
        ModelError: the manifest is not one, or names a file outside its folder.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        return None
    digests = read_struct(path, _Manifest).sha256
    for name in digests:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
            raise UnsafeModelError(
                f"{path} names {name!r}; a manifest lists files inside its folder"
            )
    return digests


def claimed_digests(folder: Path) -> dict[str, str] | None:
    """What the files are said to be: by their manifest, else by the names of a hub cache's blobs.

    The hub's clients keep each large file under its sha256, and link to it.

    Raises:
        ModelError: the manifest is not one, or names a file outside its folder.
    """
    digests = read_manifest(folder)
    if digests is not None:
        return digests
    if not folder.is_dir():
        return None
    links = {path.name: path.resolve() for path in folder.iterdir() if path.is_symlink()}
    return {
        name: blob.name
        for name, blob in links.items()
        if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name)
    } or None


def verify_manifest(
    folder: Path, *, only: Collection[str] | None = None, known: Mapping[str, str] | None = None
) -> int | None:
    """Compare files with the manifest.

    Args:
        folder: The model.
        only: Files to compare; every one if None.
        known: sha256 of files that were hashed already, by name.

    Returns:
        How many files were compared; None where nothing says what they should be.

    Raises:
        IncompleteModelError: a listed file is missing, or the manifest is cut short.
        UnsupportedModelError: the manifest lists no digests.
        ChecksumMismatchError: a file's bytes are not those of the manifest.
    """
    expected = claimed_digests(folder)
    if expected is None:
        return None
    if only is not None:
        expected = {name: digest for name, digest in expected.items() if name in only}
    missing = sorted(name for name in expected if not (folder / name).is_file())
    if missing:
        raise IncompleteModelError(f"{folder} lacks {', '.join(missing)}")
    found = dict(known or {})
    found |= file_digests(folder, sorted(expected.keys() - found.keys()))
    changed = sorted(name for name, digest in expected.items() if found[name] != digest)
    if changed:
        raise ChecksumMismatchError(
            f"{', '.join(changed)} in {folder} is not the file that {_claimant(folder)} describes; "
            "fetch the model again"
        )
    return len(expected)


def verified_digests(folder: Path) -> Mapping[str, str]:
    """sha256 of the files that a model is read from, once its manifest was compared with them.

    What the manifest lists is not hashed again; the rest is.
    """
    listed = read_manifest(folder) or {}
    names = model_files(folder)
    known = {name: listed[name] for name in names if name in listed}
    return known | file_digests(folder, [name for name in names if name not in listed])


def folder_digest(digests: Mapping[str, str]) -> str:
    """One hex sha256 for those of a model's files: what its scores are kept under."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()


def _claimant(folder: Path) -> str:
    return "the manifest" if (folder / MANIFEST_FILE).exists() else "the hub"


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != MANIFEST_FILE
        and path.suffix != ".md"
        and not path.name.startswith(".")
    )
