import ctypes
from pathlib import Path

import pytest

from tamis.engine.memory import available_bytes, release_unused


def test_a_c_library_that_cannot_trim_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert release_unused() is False


def test_unused_memory_is_given_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    class Library:
        def malloc_trim(self, pad: ctypes.c_size_t) -> int:
            kept.append(pad.value)
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library())
    assert release_unused() is True
    assert kept == [0]


def system(folder: Path, **files: str) -> tuple[Path, Path]:
    """/proc/meminfo and a cgroup with some files."""
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder / "meminfo", folder


MEMINFO = "MemTotal: 3000 kB\nMemAvailable:    2000 kB\n"


def test_available_memory_is_what_the_machine_has_left(tmp_path: Path) -> None:
    assert available_bytes(*system(tmp_path, meminfo=MEMINFO)) == 2000 * 1024
    assert available_bytes(*system(tmp_path, memory__max="max\n")) == 2000 * 1024


def test_a_containers_limit_counts_what_cannot_be_given_back(tmp_path: Path) -> None:
    stat = "anon 400000\nfile 900000\n"
    paths = system(tmp_path, meminfo=MEMINFO, memory__max="1000000\n", memory__stat=stat)
    assert available_bytes(*paths) == 600_000


def test_a_system_that_says_nothing_of_its_memory_is_believed(tmp_path: Path) -> None:
    assert available_bytes(*system(tmp_path)) is None
