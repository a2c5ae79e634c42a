"""tamis: the reranking server between retrieval and the LLM."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tamis.cascade import Cascade
    from tamis.errors import TamisError
    from tamis.reranker import Reranker
    from tamis.types import Document, RankedDocument, TokenMatch

__version__ = version("tamis")

__all__ = [
    "Cascade",
    "Document",
    "RankedDocument",
    "Reranker",
    "TamisError",
    "TokenMatch",
    "__version__",
]

_HOMES = {
    "Cascade": "tamis.cascade",
    "Document": "tamis.types",
    "RankedDocument": "tamis.types",
    "Reranker": "tamis.reranker",
    "TamisError": "tamis.errors",
    "TokenMatch": "tamis.types",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, so that `import tamis` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tamis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, whether they have been asked for or not, for `help` and completion."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
