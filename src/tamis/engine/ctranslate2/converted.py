"""The cache of converted models: where each stands, and one that is whole whenever it is wanted."""

import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tamis.engine.checkpoint import FORMAT_VERSION, Checkpoint, weight_files
from tamis.engine.ctranslate2.conversion import convert, stored_dtype
from tamis.engine.ctranslate2.scratch import sweep
from tamis.engine.manifest import verify_manifest
from tamis.errors import ModelError

logger = logging.getLogger(__name__)

_LARGE_BYTES = 250e6  # converted in a second or two


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A converted model on disk.

    Attributes:
        is_new: Whether it was made just now.
        is_kept: Whether it will be there the next time.
    """

    folder: Path
    is_new: bool = False
    is_kept: bool = True


def converted_folder(checkpoint: Checkpoint, *, dtype: str, cache_dir: Path) -> Path:
    """Where the converted form of a checkpoint stands in the cache, or will stand."""
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in checkpoint.name)
    key = _fingerprint(checkpoint)[:16]
    return cache_dir / "converted" / f"{name}-{stored_dtype(dtype)}-{key}"


@contextmanager
def converted(
    checkpoint: Checkpoint, *, dtype: str, cache_dir: Path
) -> Generator[ConvertedModel, None, None]:
    """The converted form of a checkpoint, every byte of it compared with its manifest.

    It is made from its source, which is verified too, where the cache does not hold it whole.
    A cache that cannot be written is no hindrance: the model is read before the block ends.

    Raises:
        ModelError: the source is not what its manifest says, or cannot be converted.
    """
    if checkpoint.converted_dtype is not None:
        verify_manifest(checkpoint.folder)
        yield ConvertedModel(checkpoint.folder)
        return
    verify_manifest(checkpoint.folder, known=checkpoint.content)
    folder = converted_folder(checkpoint, dtype=dtype, cache_dir=cache_dir)
    sweep(folder.parent)
    if _is_whole(folder):
        yield ConvertedModel(folder)
        return
    _say_converting(checkpoint)
    try:
        convert(checkpoint, folder, dtype=dtype)
    except OSError as error:
        logger.warning("cannot store the converted model in %s: %s", folder.parent, error)
        with tempfile.TemporaryDirectory() as temporary:
            made = _convert_beside_cache(checkpoint, Path(temporary) / "converted", dtype)
            yield ConvertedModel(made, is_new=True, is_kept=False)
        return
    yield ConvertedModel(folder, is_new=True)


def _say_converting(checkpoint: Checkpoint) -> None:
    """To people at a terminal where it takes long, however quiet the log is."""
    size = sum(path.stat().st_size for path in weight_files(checkpoint.folder) if path.exists())
    logger.info("converting %s, once; a large model takes a while", checkpoint.name)
    if size > _LARGE_BYTES and sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(
            f"converting {checkpoint.name} ({size / 1e9:.1f} GB), once; this takes a while\n"
        )


def _convert_beside_cache(checkpoint: Checkpoint, folder: Path, dtype: str) -> Path:
    try:
        return convert(checkpoint, folder, dtype=dtype)
    except OSError as error:
        raise ModelError(
            f"{checkpoint.name} cannot be converted in {folder.parent} either: "
            f"{error.strerror or error}; free some space there or in model.cache_dir"
        ) from error


def _is_whole(folder: Path) -> bool:
    try:
        return verify_manifest(folder) is not None
    except (ModelError, OSError) as error:
        logger.warning("the model is converted again: %s", error)
        return False


def _fingerprint(checkpoint: Checkpoint) -> str:
    """Changes whenever the bytes of a checkpoint's files do, its name, or how it is converted."""
    made_by = [FORMAT_VERSION, version("ctranslate2"), checkpoint.name]
    content = json.dumps([made_by, dict(checkpoint.content)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
