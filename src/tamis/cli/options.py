"""Options that several verbs share; None means what the settings say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from tamis.settings import (
    DEFAULT_MODEL,
    DeviceName,
    DtypeName,
    ModelSettings,
    RuntimeName,
    SchedulerSettings,
    ServerSettings,
)
from tamis.settings.names import SHORT_OPTIONS


def _help(option: str, section: type[BaseModel] = ModelSettings) -> str:
    """The help and default that the settings tree declares."""
    field = section.model_fields[option]
    default = "" if field.default is None else f"  [default: {field.default}]"
    return f"{field.description}{default}"


def model_names(incomplete: str) -> list[str]:
    """Models on this machine whose names begin so, and folders: what a shell completes."""
    from tamis.engine.hub.local_cache import list_fetched

    fetched = {name for name, _, _ in list_fetched()}
    parent = Path(incomplete).expanduser() if incomplete.endswith("/") else Path(incomplete).parent
    folders = {f"{path}/" for path in parent.glob("[!.]*/")} if parent.is_dir() else set[str]()
    return [n for n in sorted({DEFAULT_MODEL} | fetched | folders) if n.startswith(incomplete)]


ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help=_help("name"), autocompletion=model_names),
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help=_help("revision"))]
DeviceOption = Annotated[DeviceName | None, typer.Option("--device", help=_help("device"))]
DtypeOption = Annotated[DtypeName | None, typer.Option("--dtype", help=_help("dtype"))]
RuntimeOption = Annotated[RuntimeName | None, typer.Option("--runtime", help=_help("runtime"))]
MaxLengthOption = Annotated[
    int | None, typer.Option("--max-length", min=16, help=_help("max_length"))
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=0, help=_help("threads"))]
OfflineOption = Annotated[bool | None, typer.Option("--offline/--online", help=_help("offline"))]


HostOption = Annotated[str | None, typer.Option("--host", help=_help("host", ServerSettings))]
PortOption = Annotated[int | None, typer.Option("--port", help=_help("port", ServerSettings))]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help=_help("workers", SchedulerSettings))
]
Name = Annotated[
    str | None,
    typer.Argument(
        help="Embedded model, Hub name or local folder; or use --model.",
        show_default=False,
        autocompletion=model_names,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Same as NAME.", autocompletion=model_names),
]
"""A model as a verb's first word or as its --model; `the_model` puts the two together."""


def the_model(name: str | None, model: str | None) -> str:
    """The one model that a verb was given, as its first word or as --model.

    Raises:
        BadParameter: there is none, or there are two.
    """
    if name is not None and model is not None and name != model:
        raise typer.BadParameter(f"two models are named, {name} and {model}; give one")
    found = model if name is None else name
    if not found:
        raise typer.BadParameter("no model is named: an embedded one, a Hub name or a folder")
    return found


def settings_arguments(parameters: Mapping[str, object]) -> list[str]:
    """Short options that a verb was given, as arguments of the settings.

    Args:
        parameters: The verb's own, its `locals()` as it starts.
    """
    given = {name: parameters.get(name) for name in SHORT_OPTIONS}
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def model_options(parameters: Mapping[str, object]) -> dict[str, object]:
    """Options of a model that a verb was given, by the settings' names.

    Args:
        parameters: The verb's own, its `locals()` as it starts; `model` is the settings' `name`.
    """
    named = {("name" if key == "model" else key): value for key, value in parameters.items()}
    return {key: named[key] for key in ModelSettings.model_fields if named.get(key) is not None}
