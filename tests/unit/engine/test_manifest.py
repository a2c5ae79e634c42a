import hashlib
from pathlib import Path

import pytest

from tamis.engine.files import file_sha256
from tamis.engine.manifest import (
    MANIFEST_FILE,
    read_manifest,
    verify_manifest,
    write_manifest,
)
from tamis.errors import ChecksumMismatchError, IncompleteModelError, UnsupportedModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files, one of them further down, and a manifest."""
    (tmp_path / "below").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "below" / "model.bin").write_bytes(b"weights" * 1000)
    (tmp_path / ".hidden").write_text("not listed")
    write_manifest(tmp_path)
    return tmp_path


def test_a_manifest_lists_the_sha256_of_every_file(folder: Path) -> None:
    assert read_manifest(folder) == {
        "below/model.bin": hashlib.sha256(b"weights" * 1000).hexdigest(),
        "config.json": hashlib.sha256(b"{}").hexdigest(),
    }
    assert file_sha256(folder / "config.json") == hashlib.sha256(b"{}").hexdigest()


def test_an_untouched_folder_is_verified_file_by_file(folder: Path) -> None:
    assert verify_manifest(folder) == 2


def test_a_folder_without_a_manifest_has_nothing_to_verify(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()

    assert verify_manifest(folder) is None
    assert read_manifest(folder) is None


def test_one_changed_byte_is_found(folder: Path) -> None:
    (folder / "below" / "model.bin").write_bytes(b"weights" * 999 + b"Weights")

    with pytest.raises(ChecksumMismatchError, match=r"^below/model\.bin in"):
        verify_manifest(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()

    with pytest.raises(IncompleteModelError, match=r"lacks config\.json"):
        verify_manifest(folder)


@pytest.mark.parametrize("content", ["{}", '{"sha256": []}', '{"sha256": {"config.json": 7}}'])
def test_a_manifest_of_another_kind_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST_FILE).write_text(content)

    with pytest.raises(UnsupportedModelError, match=r"tamis-manifest\.json: .*sha256"):
        verify_manifest(folder)


def test_writing_again_does_not_list_the_manifest_itself(folder: Path) -> None:
    assert MANIFEST_FILE not in write_manifest(folder)
