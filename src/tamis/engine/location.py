"""A model's name -> a local folder: embedded, one's own, already fetched, or fetched now."""

import re
from pathlib import Path

from tamis.engine.hub.local_cache import find_fetched
from tamis.errors import ModelNotFoundError, SettingsError
from tamis.settings import DEFAULT_MODEL

EMBEDDED_FOLDER = Path(__file__).parent.parent / "models" / "mini"

_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


def locate(name: str, *, revision: str | None, offline: bool) -> Path:
    """The folder of a model; one that is on this machine is found without asking the hub.

    Raises:
        ModelNotFoundError: it is neither a folder nor a repository.
        HubUnreachableError: it is not here, and the hub cannot or may not be asked.
        SettingsError: it is not here, and the hub's client cannot be used as it is set.
    """
    if name == DEFAULT_MODEL:
        return EMBEDDED_FOLDER
    if name and _is_folder(name):
        return Path(name)
    if not _NAME.fullmatch(name):
        raise ModelNotFoundError(
            f"{name!r} is neither a local folder nor a valid Hub repository name (ORG/NAME)"
        )
    fetched = find_fetched(name, revision=revision)
    return pull(name, revision=revision, offline=offline) if fetched is None else fetched


def pull(name: str, *, revision: str | None, offline: bool) -> Path:
    """Fetch a model from the hub (see `hub/client.py`).

    Raises:
        SettingsError: a variable of the hub's client has a value that it cannot read.
    """
    try:
        # now: a model that is here is not kept waiting for its imports
        from tamis.engine.hub import client
    except (ValueError, OSError) as error:
        raise SettingsError(
            f"the hub's client cannot be set up: {error}; check the variables that begin with HF_"
        ) from error
    return client.pull(name, revision=revision, offline=offline)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # longer than a name may be, or with a NUL
        return False
