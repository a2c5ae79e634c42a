"""Options that several verbs share; None means what the settings say."""

from collections.abc import Mapping
from typing import Annotated

import typer

from tamis.settings import DeviceName, DtypeName, ModelSettings, RuntimeName


def _help(option: str) -> str:
    """The help and default that the settings tree declares."""
    field = ModelSettings.model_fields[option]
    default = "" if field.default is None else f"  [default: {field.default}]"
    return f"{field.description}{default}"


Model = Annotated[str | None, typer.Option("--model", "-m", help=_help("name"))]
Revision = Annotated[str | None, typer.Option("--revision", help=_help("revision"))]
Device = Annotated[DeviceName | None, typer.Option("--device", help=_help("device"))]
Dtype = Annotated[DtypeName | None, typer.Option("--dtype", help=_help("dtype"))]
Runtime = Annotated[RuntimeName | None, typer.Option("--runtime", help=_help("runtime"))]
MaxLength = Annotated[int | None, typer.Option("--max-length", min=16, help=_help("max_length"))]
Threads = Annotated[int | None, typer.Option("--threads", min=0, help=_help("threads"))]
Offline = Annotated[bool | None, typer.Option("--offline/--online", help=_help("offline"))]


def model_options(parameters: Mapping[str, object]) -> dict[str, object]:
    """Options of a model that a verb was given, by the settings' names.

    Args:
        parameters: The verb's own, its `locals()` as it starts; `model` is the settings' `name`.
    """
    named = {("name" if key == "model" else key): value for key, value in parameters.items()}
    return {key: named[key] for key in ModelSettings.model_fields if named.get(key) is not None}
