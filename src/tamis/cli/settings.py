"""`tamis settings`: what is in force."""

import json

import typer

from tamis.cli.options import (
    Device,
    Dtype,
    Host,
    MaxLength,
    Model,
    Offline,
    Port,
    Revision,
    Runtime,
    Threads,
    Workers,
    settings_arguments,
)
from tamis.settings import ENV_PREFIX, describe_options, load_settings


def settings(
    context: typer.Context,
    as_json: bool = typer.Option(False, "--json", help="As JSON."),
    names: bool = typer.Option(False, "--names", help="Names, variables, defaults and help."),
    model: Model = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    runtime: Runtime = None,
    max_length: MaxLength = None,
    threads: Threads = None,
    offline: Offline = None,
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
) -> None:
    """Print the effective settings: defaults, then variables, then arguments.

    Takes every option itself, as --server.port 9000 or TAMIS_SERVER__PORT=9000, and the short
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
