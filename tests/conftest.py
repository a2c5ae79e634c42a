"""Fixtures of all tests: model folders made once, and no trace outside temporary folders."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

# torch's threads that wait leave the core to others, as the server's do
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if TYPE_CHECKING:
    from tests.redis_servers import RedisServer

for profile, max_examples in (("quick", 50), ("nightly", 1000)):
    # no deadline: a busy machine is no failure
    hypothesis.settings.register_profile(profile, deadline=None, max_examples=max_examples)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# a shell in whose background the tests run, or nohup, has all they start ignore these
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Have the collector pass over all that was imported: each opened model runs it."""
    gc.freeze()


FAMILIES = ("xlm-roberta", "roberta", "bert")


@pytest.fixture(scope="session", autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches go to a temporary folder, and no TAMIS_ variable of the caller's counts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("huggingface")))
        yield


@pytest.fixture(scope="session")
def tiny_classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of seeded tiny classifiers by family; not to be written to."""
    from tests import tiny_models  # transformers takes seconds: only for tests that want it

    gc.freeze()
    root = tmp_path_factory.mktemp("classifiers")
    return {family: tiny_models.save_classifier(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="session")
def tiny_model(tiny_classifiers: dict[str, Path]) -> Path:
    """The folder of a tiny XLM-R reranker; not to be written to."""
    return tiny_classifiers["xlm-roberta"]


@pytest.fixture(scope="session")
def tiny_maxsim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny late-interaction model; not to be written to."""
    from tests import tiny_models

    return tiny_models.save_late_interaction(tmp_path_factory.mktemp("models") / "tiny-maxsim")


@pytest.fixture(params=FAMILIES)
def classifier(request: pytest.FixtureRequest, tiny_classifiers: dict[str, Path]) -> Path:
    """Each family's tiny classifier in turn."""
    return tiny_classifiers[request.param]


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """An empty folder for converted models."""
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["RedisServer"]:
    """A Redis for tests that leave its options as they are; they empty it first."""
    from tests.redis_servers import running_redis  # redis-py takes a while, too

    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server
