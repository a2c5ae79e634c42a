import logging
import os
import subprocess
import sys

import pytest

from tamis.engine.ctranslate2 import kernels
from tamis.engine.ctranslate2.kernels import (
    LIBRARY_VARIABLE,
    SPIN_COUNT,
    SPIN_VARIABLE,
    VECTORS_VARIABLE,
    WAIT_POLICY_VARIABLE,
    KernelChoice,
    Kernels,
    environment_of,
    own_choice,
    with_other_library,
    with_other_vectors,
)

SPIN = {SPIN_VARIABLE: SPIN_COUNT}


def process(environment: dict[str, str], *, imported: bool = False) -> KernelChoice:
    """A process in which no model has been opened yet."""
    return KernelChoice(environment, lambda: imported)


@pytest.fixture(autouse=True)
def on_intel(monkeypatch: pytest.MonkeyPatch) -> None:
    """CTranslate2 takes MKL by itself."""
    monkeypatch.setattr(kernels, "processor_vendor", lambda: "GenuineIntel")
    monkeypatch.setattr(kernels, "has_avx512", lambda: True)


@pytest.mark.parametrize(
    ("vendor", "choice"),
    [("GenuineIntel", "mkl"), ("AuthenticAMD", "onednn"), (None, None)],
)
def test_ctranslate2_goes_by_the_vendor(
    monkeypatch: pytest.MonkeyPatch, vendor: str | None, choice: Kernels | None
) -> None:
    monkeypatch.setattr(kernels, "processor_vendor", lambda: vendor)
    assert own_choice() == choice
    assert process({}).settle() == choice


def test_what_was_measured_to_be_faster_is_put_into_the_environment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment = {"HOME": "here"}
    with caplog.at_level(logging.INFO):
        assert process(environment).settle("onednn avx512") == "onednn avx512"
    assert environment == SPIN | {
        "HOME": "here",
        LIBRARY_VARIABLE: "0",
        VECTORS_VARIABLE: "AVX512",
    }
    assert "are onednn avx512, measured to be faster" in caplog.text


def test_nothing_is_set_where_ctranslate2_chooses_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment: dict[str, str] = {}
    with caplog.at_level(logging.INFO):
        assert process(environment).settle("mkl") == "mkl"
    assert environment == SPIN
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "value"), [(LIBRARY_VARIABLE, "0"), (VECTORS_VARIABLE, "GENERIC")]
)
def test_the_users_environment_holds(
    caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    environment = {name: value}
    choice = process(environment)
    with caplog.at_level(logging.INFO):
        assert choice.settle("mkl avx512") is None
        assert choice.settle("onednn") is None
    assert environment == SPIN | {name: value}
    assert caplog.text.count(f"as the environment says: {name}={value}") == 1


def test_an_empty_variable_leaves_the_choice_open() -> None:
    environment = {LIBRARY_VARIABLE: ""}
    assert process(environment).settle("onednn") == "onednn"
    assert environment == SPIN | {LIBRARY_VARIABLE: "0"}


@pytest.mark.parametrize(
    ("name", "value"), [(SPIN_VARIABLE, "300000"), (WAIT_POLICY_VARIABLE, "active")]
)
def test_how_threads_wait_is_the_users_where_the_user_says_so(name: str, value: str) -> None:
    environment = {name: value}
    process(environment).settle()
    assert environment == {name: value}


def test_threads_soon_sleep_at_a_barrier_in_a_process_of_its_own() -> None:
    code = f"""
import os
import subprocess
import sys
from tamis.engine.ctranslate2 import kernels
kernels.settle_kernels()
print(os.environ[{SPIN_VARIABLE!r}])
"""
    unset = {name: value for name, value in os.environ.items() if name != SPIN_VARIABLE}
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env=unset)
    assert printed.strip() == SPIN_COUNT


def test_the_first_model_of_a_process_decides(caplog: pytest.LogCaptureFixture) -> None:
    environment: dict[str, str] = {}
    choice = process(environment)
    assert choice.settle() == "mkl"
    with caplog.at_level(logging.INFO):
        assert choice.settle("onednn") == "mkl"
    assert environment == SPIN
    assert "are mkl in this process already; onednn were measured" in caplog.text


def test_the_environment_of_another_process_names_its_kernels_alone() -> None:
    base = {"HOME": "here", LIBRARY_VARIABLE: "1", VECTORS_VARIABLE: "AVX512"}
    assert environment_of("onednn", base) == {"HOME": "here", LIBRARY_VARIABLE: "0"}


def test_other_vectors_are_there_where_the_processor_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "has_avx512", lambda: True)
    assert with_other_vectors("mkl") == "mkl avx512"
    assert with_other_vectors("onednn avx512") == "onednn"
    monkeypatch.setattr(kernels, "has_avx512", lambda: False)
    assert with_other_vectors("mkl") is None
    assert with_other_library("mkl avx512") == "onednn avx512"


def test_once_ctranslate2_is_imported_its_library_is_settled_but_not_its_vectors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment: dict[str, str] = {}
    with caplog.at_level(logging.INFO):
        assert process(environment, imported=True).settle("onednn avx512") == "mkl"
    assert environment == SPIN
    assert "imported before its kernels could be chosen" in caplog.text
    assert process(environment, imported=True).settle("mkl avx512") == "mkl avx512"
    assert environment[VECTORS_VARIABLE] == "AVX512"
