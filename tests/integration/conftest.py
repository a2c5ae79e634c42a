"""Servers that several tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.integration.serving import Served, Shell, serving_folder


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> Iterator[None]:
    """Events of servers in this process go where pytest catches them."""
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def served(tiny_model: Path) -> Iterator[Served]:
    """A server on the tiny model; tests leave it as they found it."""
    with serving_folder(tiny_model) as server:
        yield server


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The `tamis` command as on a machine without torch, as most are: it starts faster, too."""
    folder = tmp_path_factory.mktemp("without-torch")
    (folder / "torch.py").write_text("raise ImportError('not installed here')\n")
    return Shell({"PYTHONPATH": str(folder)})
