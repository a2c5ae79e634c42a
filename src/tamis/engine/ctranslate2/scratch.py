"""Temporary folders of conversions, which are removed at the next start if their process died.

Each is locked while its process lives; the kernel lets go of the lock however the process ends.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".converting."


@contextmanager
def scratch_folder(parent: Path) -> Generator[Path]:
    """A temporary folder in `parent`, locked by this process until the block ends.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with _locked(parent):  # no sweep comes between the folder and its lock
            folder = tempfile.TemporaryDirectory(
                prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True
            )
            stack.enter_context(folder)
            stack.enter_context(_locked(Path(folder.name)))
        yield Path(folder.name)


def sweep(parent: Path) -> None:
    """Remove the temporary folders of processes that died; those of living ones stay."""
    left = [path for path in parent.glob(f"{_PREFIX}*") if path.is_dir()]
    if not left:
        return
    with _locked(parent) as parent_is_locked:
        for folder in left if parent_is_locked else []:
            with _locked(folder, waits=False) as is_locked:
                if is_locked and _is_a_conversions(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_a_conversions(folder: Path) -> bool:
    """Whether there is nothing in it but what a conversion puts there; False if it is gone."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:  # its own process removed it a moment ago
        return False
    return all(name == "made" or name.startswith("replaced-") for name in names)


@contextmanager
def _locked(folder: Path, *, waits: bool = True) -> Generator[bool]:
    """Whether the folder is locked for the block; false where a file system has no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _flock(descriptor, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        return False
    return True
