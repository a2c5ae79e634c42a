from pathlib import Path

import pytest
import torch
from training.data.texts import Texts, read_texts
from training.model.folder import read_tokenizer
from training.model.train import Prepared, prepare
from training.smoke import DATA, PLAN

from tamis.engine.location import EMBEDDED_FOLDER
from tests.unit.training.narrow import save_narrow


@pytest.fixture(autouse=True)
def with_one_thread() -> None:
    """Other tests may have left torch more, which cost small models more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the embedded model made narrow; not to be written to."""
    return save_narrow(tmp_path_factory.mktemp("narrow") / "model")


@pytest.fixture(scope="session")
def texts() -> Texts:
    """The slice of XQuAD."""
    return read_texts(DATA, read_tokenizer(EMBEDDED_FOLDER))


@pytest.fixture(scope="session")
def prepared(narrow: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """All that a narrow toy is trained from."""
    return prepare(narrow, DATA, Path(tmp_path_factory.mktemp("work")), PLAN)
