"""What a measurement was made on: machine, versions, commit and time."""

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tamis
from tamis.engine.device import processor_name, usable_cores

PACKAGES = ("tamis", "ctranslate2", "numpy", "tokenizers", "torch")


def environment(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Processor, cores, versions (None of what is not installed), commit, time in UTC.

    The commit is None outside a git checkout of tamis.
    """
    checkout = _checkout()
    return {
        "measured_at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor_name(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "commit": _git(checkout, "rev-parse", "--short", "HEAD"),
        "uncommitted_changes": _has_changes(checkout),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _checkout() -> Path | None:
    """The repository that these sources are tracked in; an environment may lie in another's."""
    module = Path(tamis.__file__)
    tracked = _git(module.parent, "ls-files", "--error-unmatch", module.name)
    return module.parent if tracked else None


def _has_changes(checkout: Path | None) -> bool | None:
    changes = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return None if changes is None else bool(changes)


def _git(folder: Path | None, *arguments: str) -> str | None:
    """What git prints; None where it fails, is not installed or has no folder to look at."""
    if folder is None:
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
