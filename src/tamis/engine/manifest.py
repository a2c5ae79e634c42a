"""sha256 of a model's files: written when they are fetched or made, checked at load."""

import hashlib
import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tamis.engine.checkpoint import read_struct
from tamis.errors import ChecksumMismatchError, IncompleteModelError

MANIFEST_FILE = "tamis-manifest.json"


class _Manifest(msgspec.Struct, frozen=True):
    sha256: dict[str, str]


def write_manifest(folder: Path) -> dict[str, str]:
    """Write the sha256 of every file in a folder but its prose; returns them by relative path."""
    digests = _digests(folder, _files(folder))
    text = json.dumps({"sha256": digests}, indent=2, sort_keys=True)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    return digests


def read_manifest(folder: Path) -> dict[str, str] | None:
    """Digests by relative path; None where a folder has no manifest.

    Raises:
        ModelError: the manifest is not one.
    """
    path = folder / MANIFEST_FILE
    return read_struct(path, _Manifest).sha256 if path.exists() else None


def verify_manifest(folder: Path, *, only: Collection[str] | None = None) -> int | None:
    """Compare files with the manifest.

    Args:
        folder: The model.
        only: Files to compare; every one if None.

    Returns:
        How many files were compared; None where a folder has no manifest.

    Raises:
        IncompleteModelError: a listed file is missing, or the manifest is cut short.
        UnsupportedModelError: the manifest lists no digests.
        ChecksumMismatchError: a file's bytes are not those of the manifest.
    """
    expected = read_manifest(folder)
    if expected is None:
        return None
    if only is not None:
        expected = {name: digest for name, digest in expected.items() if name in only}
    missing = sorted(name for name in expected if not (folder / name).is_file())
    if missing:
        raise IncompleteModelError(f"{folder} lacks {', '.join(missing)}")
    found = _digests(folder, sorted(expected))
    changed = sorted(name for name, digest in expected.items() if found[name] != digest)
    if changed:
        raise ChecksumMismatchError(
            f"{', '.join(changed)} in {folder} is not the file that the manifest describes; "
            "fetch the model again"
        )
    return len(expected)


def folder_digest(folder: Path) -> str:
    """Hex sha256 of all files of a model but its prose: of its manifest, or of the files now."""
    digests = read_manifest(folder)
    if digests is None:
        digests = _digests(folder, _files(folder))
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != MANIFEST_FILE
        and path.suffix != ".md"
        and not path.name.startswith(".")
    )


def _digests(folder: Path, names: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor() as pool:
        return dict(
            zip(names, pool.map(file_sha256, (folder / name for name in names)), strict=True)
        )
