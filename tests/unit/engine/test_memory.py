import ctypes

import pytest

from tamis.engine.memory import release_unused


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
