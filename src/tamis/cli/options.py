"""Options that several verbs share."""

from typing import Annotated

import typer

from tamis.settings import DeviceName, DtypeName, ModelSettings, RuntimeName

_FIELDS = ModelSettings.model_fields

Model = Annotated[str, typer.Option("--model", "-m", help=_FIELDS["name"].description)]
Revision = Annotated[str | None, typer.Option("--revision", help=_FIELDS["revision"].description)]
Device = Annotated[DeviceName, typer.Option("--device", help=_FIELDS["device"].description)]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help=_FIELDS["dtype"].description)]
Runtime = Annotated[RuntimeName, typer.Option("--runtime", help=_FIELDS["runtime"].description)]
Offline = Annotated[bool, typer.Option("--offline", help=_FIELDS["offline"].description)]
MaxLength = Annotated[
    int | None,
    typer.Option(
        "--max-length", min=16, help=_FIELDS["max_length"].description, show_default="512"
    ),
]
