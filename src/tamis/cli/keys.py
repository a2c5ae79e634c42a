"""`tamis keys`: who may call a server."""

import typer

keys = typer.Typer(help="API keys of a server's callers.", no_args_is_help=True)


@keys.callback()
def _root() -> None:
    """API keys of a server's callers."""


@keys.command()
def make(
    name: str = typer.Argument(
        help="Name of the caller: letters, digits, dots, dashes, underscores."
    ),
    tokens: int | None = typer.Option(
        None,
        min=1,
        help="Maximum tokens of this caller waiting or running; default: no separate limit.",
    ),
) -> None:
    """Make a key: show it once on stderr, and print its `server.keys_file` line to stdout.

    tamis keys make web >> keys.txt shows the key and lets it in. A server that runs sees it
    within two seconds, or at SIGHUP. Taking the line out withdraws the key.
    """
    from tamis.server.keys import make_key

    key, line = make_key(name, tokens)
    typer.echo(line)
    typer.echo(key, err=True)
