"""`tamis settings`: what is in force."""

import json

import typer

from tamis.cli.options import (
    DeviceOption,
    DtypeOption,
    HostOption,
    MaxLengthOption,
    ModelOption,
    OfflineOption,
    PortOption,
    RevisionOption,
    RuntimeOption,
    ThreadsOption,
    WorkersOption,
    settings_arguments,
)
from tamis.settings import ENV_PREFIX, describe_options, load_settings


def settings(
    context: typer.Context,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    names: bool = typer.Option(False, "--names", help="Print names, variables, defaults and help."),
    model: ModelOption = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    runtime: RuntimeOption = None,
    max_length: MaxLengthOption = None,
    threads: ThreadsOption = None,
    offline: OfflineOption = None,
    host: HostOption = None,
    port: PortOption = None,
    workers: WorkersOption = None,
) -> None:
    """Print the effective settings: defaults, overridden by variables, then arguments.

    Accepts every option, such as --server.port 9000 or TAMIS_SERVER__PORT=9000, and the short
    ones as `tamis serve` does.
    """
    short = settings_arguments(locals())
    if names:
        typer.echo(_options_help())
        return
    effective = load_settings([*context.args, *short], takes_model=True).model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(effective, indent=2))
        return
    for name, _, _ in describe_options():
        section, _, option = name.partition(".")
        typer.echo(f"{name} = {json.dumps(effective[section][option])}")


def _options_help() -> str:
    """Every option: argument, variable, default and help."""
    lines: list[str] = []
    for name, default, text in describe_options():
        variable = ENV_PREFIX + name.upper().replace(".", "__")
        lines.append(f"--{name}  ({variable}, default {default})\n    {text}")
    return "\n".join(lines)
