import subprocess
import sys
from pathlib import Path

import pytest

from tamis.engine.hub.local_cache import list_fetched
from tamis.engine.location import EMBEDDED_FOLDER, locate
from tamis.errors import HubUnreachableError, ModelNotFoundError


def test_a_folder_is_taken_as_it_stands(tmp_path: Path) -> None:
    assert locate(str(tmp_path), revision=None, offline=False) == tmp_path


def test_the_embedded_model_needs_no_network() -> None:
    assert locate("tamis-mini", revision=None, offline=True) == EMBEDDED_FOLDER


@pytest.mark.parametrize(
    "name", ["./no/such/folder", "/nowhere", "a/b/c", "", "what is it?", "a//b"]
)
def test_what_is_neither_a_folder_nor_a_name_is_not_found(name: str) -> None:
    with pytest.raises(
        ModelNotFoundError, match="neither a local folder nor a valid Hub repository name"
    ):
        locate(name, revision=None, offline=False)


@pytest.mark.parametrize("name", ["BAAI/bge-reranker-v2-m3", "bert-base", "a.b/c_d-e"])
def test_a_name_is_not_asked_for_when_offline(name: str) -> None:
    with pytest.raises(HubUnreachableError, match=f"tamis models pull {name}"):
        locate(name, revision=None, offline=True)


@pytest.mark.parametrize("name", ["a--b/c", "a/b.git"])
def test_a_name_that_the_hub_could_not_have_is_not_found(name: str) -> None:
    with pytest.raises(
        ModelNotFoundError, match="neither a local folder nor a valid Hub repository name"
    ):
        locate(name, revision=None, offline=False)


def test_without_a_cache_nothing_is_listed() -> None:
    assert list_fetched() == []


def test_a_model_that_is_here_is_found_without_the_hubs_client(tmp_path: Path) -> None:
    code = f"""
import sys
from tamis.engine.location import locate
locate("tamis-mini", revision=None, offline=False)
locate({str(tmp_path)!r}, revision=None, offline=False)
print("huggingface_hub" in sys.modules)
"""

    printed = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert printed.strip() == "False"
