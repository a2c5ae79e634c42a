from pathlib import Path

import pytest
import torch
from training.data.texts import Texts, read_texts
from training.model.folder import read_tokenizer
from training.model.train import Prepared, prepare
from training.smoke import DATA, PLAN

from tamis.engine.device import usable_cores
from tamis.engine.location import EMBEDDED_FOLDER


@pytest.fixture(autouse=True)
def with_all_cores() -> None:
    """Runtimes that other tests have opened may have left torch one."""
    take_all_cores()


def take_all_cores() -> None:
    """Torch computes with every core from now on."""
    torch.set_num_threads(usable_cores())


@pytest.fixture(scope="session")
def texts() -> Texts:
    """The slice of XQuAD."""
    return read_texts(DATA, read_tokenizer(EMBEDDED_FOLDER))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """All that the toy is trained from."""
    take_all_cores()
    return prepare(EMBEDDED_FOLDER, DATA, Path(tmp_path_factory.mktemp("work")), PLAN)
