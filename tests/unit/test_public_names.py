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
