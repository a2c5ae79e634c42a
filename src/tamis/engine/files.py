"""Reads a model's files: regular files only, and none larger than it may be.

A model's folder may come from anywhere. A FIFO in it would be waited for, a device never ends, and
a sparse file of gigabytes takes as much memory.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from tamis.errors import IncompleteModelError, UnsafeModelError, UnsupportedModelError

Content = TypeVar("Content")

JSON_BYTES = 4 * 2**20
"""Most bytes of a description: config, manifest, index, golden logits, measurements."""
TOKENIZER_BYTES = 64 * 2**20
"""Most bytes of a tokenizer.json; those of known models have up to 34 MB."""
LARGEST_BYTES = {"tokenizer.json": TOKENIZER_BYTES}
"""By name, where it is another limit than that of a description."""


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, without waiting and only if it is a regular one.

    Raises:
        OSError: it cannot be opened.
        UnsafeModelError: it is a FIFO, a device or a socket.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bounded(path: Path) -> bytes:
    """The bytes of a model's description or tokenizer.

    Raises:
        OSError: it cannot be read.
        UnsafeModelError: it is not a regular file, or larger than a file of this name may be.
    """
    limit = LARGEST_BYTES.get(path.name, JSON_BYTES)
    with open_regular(path) as file:
        _require_size(path, os.fstat(file.fileno()).st_size, limit)
        content = file.read(limit + 1)  # a file may be longer than it says
    _require_size(path, len(content), limit)
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        IncompleteModelError: the file is missing, cannot be read or holds something else.
        UnsafeModelError: it is not a regular file, or far larger than such a file is.
    """
    try:
        content = json.loads(read_bounded(path).decode("utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise IncompleteModelError(f"{path.parent} has no {path.name}") from None
    except OSError as error:
        raise IncompleteModelError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise IncompleteModelError(f"{path} is not valid JSON: {error}") from error
    except MemoryError:
        raise UnsafeModelError(f"{path} needs more memory than is available") from None
    if not isinstance(content, dict):
        raise IncompleteModelError(f"{path} is not a JSON object")
    return cast("dict[str, Any]", content)


def read_struct(path: Path, kind: type[Content]) -> Content:
    """A JSON object from a file, its fields checked against a struct's; others are left out.

    Raises:
        IncompleteModelError: the file is missing, cannot be read or is not a JSON object.
        UnsupportedModelError: a field is missing or of another type.
    """
    try:
        return msgspec.convert(read_json(path), kind)
    except msgspec.ValidationError as error:
        raise UnsupportedModelError(f"tamis cannot use {path}: {error}") from error


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file.

    Raises:
        OSError: it cannot be read.
        UnsafeModelError: it is not a regular file.
    """
    with open_regular(path) as file:
        if path.name in LARGEST_BYTES:
            _require_size(path, os.fstat(file.fileno()).st_size, LARGEST_BYTES[path.name])
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Hex sha256 of files by name, each file on a thread: hashing releases the GIL."""
    wanted = list(names)
    with ThreadPoolExecutor() as pool:
        digests = pool.map(file_sha256, (folder / name for name in wanted))
        return dict(zip(wanted, digests, strict=True))


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise UnsafeModelError(f"{path} is not a regular file; replace it with a regular file")


def _require_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise UnsafeModelError(
            f"{path} has {size:,} bytes, and a {path.name} may have at most {limit:,}; "
            "fetch the model again"
        )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
