"""A model's name -> a local folder: embedded, one's own, already fetched, or fetched now."""

import logging
import re
from pathlib import Path

from tamis.errors import HubUnreachableError, ModelNotFoundError
from tamis.settings import DEFAULT_MODEL

logger = logging.getLogger(__name__)

EMBEDDED_FOLDER = Path(__file__).parent.parent / "models" / "mini"

_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


def locate(name: str, *, revision: str | None, offline: bool) -> Path:
    """The folder of a model.

    Raises:
        ModelNotFoundError: it is neither a folder nor a repository.
        HubUnreachableError: it is not here, and the hub cannot or may not be asked.
    """
    if name == DEFAULT_MODEL:
        return EMBEDDED_FOLDER
    if name and Path(name).is_dir():
        return Path(name)
    if not _NAME.fullmatch(name):
        raise ModelNotFoundError(f"there is no folder {name}, and it is no name of a repository")
    return _locate_repository(name, revision=revision, offline=offline)


def _locate_repository(name: str, *, revision: str | None, offline: bool) -> Path:
    from tamis.engine import hub  # a model that is here is not kept waiting for its imports

    fetched = hub.find_fetched(name, revision=revision)
    if fetched is not None:
        return fetched
    try:
        return hub.pull(name, revision=revision, offline=offline)
    except HubUnreachableError:
        unverified = hub.find_fetched(name, revision=revision, verified=False)
        if unverified is None:
            raise
        logger.warning("%s was fetched by another program and has no manifest", name)
        return unverified
