import logging
import os

import pytest

from tamis.engine.runtimes import gemm_library
from tamis.engine.runtimes.gemm_library import VARIABLE, Library, LibraryChoice, own_choice


class Process:
    """A process in which CTranslate2 has not been used yet."""

    def __init__(self, *, lacks: str | None = None) -> None:
        self.read: list[str | None] = []
        self._lacks = lacks
        self.choice = LibraryChoice(self._first_use)

    def _first_use(self) -> None:
        if self._lacks is not None and os.environ.get(VARIABLE) == self._lacks:
            raise ValueError("not compiled with it")
        self.read.append(os.environ.get(VARIABLE))


@pytest.fixture(autouse=True)
def on_intel(monkeypatch: pytest.MonkeyPatch) -> None:
    """CTranslate2 takes MKL by itself, and nobody forces it to anything."""
    monkeypatch.setattr(gemm_library, "processor_vendor", lambda: "GenuineIntel")
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("vendor", "library"),
    [("GenuineIntel", "mkl"), ("AuthenticAMD", "onednn"), (None, None)],
)
def test_ctranslate2_goes_by_the_vendor(
    monkeypatch: pytest.MonkeyPatch, vendor: str | None, library: Library | None
) -> None:
    monkeypatch.setattr(gemm_library, "processor_vendor", lambda: vendor)
    assert own_choice() == library
    assert Process().choice.settle() == library


def test_what_was_measured_to_be_faster_is_in_the_environment_when_it_is_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = Process()
    with caplog.at_level(logging.INFO):
        assert process.choice.settle("onednn") == "onednn"
    assert process.read == ["0"]
    assert VARIABLE not in os.environ
    assert "multiplies with oneDNN, measured to be faster" in caplog.text


def test_nothing_is_set_where_ctranslate2_chooses_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = Process()
    with caplog.at_level(logging.INFO):
        assert process.choice.settle("mkl") == "mkl"
    assert process.read == [None]
    assert not caplog.records


@pytest.mark.parametrize(("value", "library"), [("1", "mkl"), ("true", "mkl"), ("0", "onednn")])
def test_the_users_environment_holds(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    value: str,
    library: Library,
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    other: Library = "onednn" if library == "mkl" else "mkl"
    process = Process()
    with caplog.at_level(logging.INFO):
        assert process.choice.settle(other) == library
    assert process.read == [value]
    assert os.environ[VARIABLE] == value
    assert f"as {VARIABLE} says" in caplog.text


def test_an_empty_variable_leaves_the_choice_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    process = Process()
    assert process.choice.settle("onednn") == "onednn"
    assert process.read == ["0"]


def test_the_first_model_of_a_process_decides(caplog: pytest.LogCaptureFixture) -> None:
    process = Process()
    assert process.choice.settle() == "mkl"
    with caplog.at_level(logging.INFO):
        assert process.choice.settle("onednn") == "mkl"
    assert process.read == [None]
    assert "MKL in this process already" in caplog.text
    assert "oneDNN was measured to be faster" in caplog.text


def test_a_library_that_this_build_lacks_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    process = Process(lacks="0")
    assert process.choice.settle("onednn") == "mkl"
    assert process.read == [None]
    assert "keeps its own choice" in caplog.text
