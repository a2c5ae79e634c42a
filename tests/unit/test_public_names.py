import pydoc
import rlcompleter
import subprocess
import sys

import pytest

import tamis


@pytest.mark.parametrize("name", [name for name in tamis.__all__ if not name.startswith("_")])
def test_a_public_name_comes_from_the_package_itself(name: str) -> None:
    assert getattr(tamis, name).__module__.startswith("tamis") or name == "Document"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sieve'"):
        _ = tamis.Sieve


def test_importing_tamis_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'ctranslate2', 'tokenizers', 'numpy', 'huggingface_hub', 'pydantic'}"
    code = f"import sys, tamis; print(sorted({heavy} & set(sys.modules)))"

    printed = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert printed.strip() == "[]"


def test_public_names_are_listed_before_anybody_has_asked_for_them() -> None:
    code = "import sys, tamis; print(*dir(tamis)); print('numpy' in sys.modules)"
    listed, has_numpy = subprocess.check_output([sys.executable, "-c", code], text=True).split(
        "\n"
    )[:2]
    assert set(tamis.__all__) <= set(listed.split())
    assert [name for name in listed.split() if not name.startswith("__")] == sorted(
        name for name in tamis.__all__ if not name.startswith("__")
    )
    assert has_numpy == "False"


def test_help_shows_the_public_names() -> None:
    shown = pydoc.plain(pydoc.render_doc(tamis))
    assert "class Reranker" in shown
    assert "Put documents in order for a query" in shown
    assert [name for name in tamis.__all__ if name not in shown] == ["__version__"]
    assert tamis.__version__ in shown


def test_a_star_brings_all_of_them() -> None:
    code = "from tamis import *; print(Reranker.__name__, Cascade.__name__, __version__)"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.split() == ["Reranker", "Cascade", tamis.__version__]


def test_a_shell_completes_them() -> None:
    found = rlcompleter.Completer({"tamis": tamis})
    assert str(found.complete("tamis.Rerank", 0)).startswith("tamis.Reranker")
