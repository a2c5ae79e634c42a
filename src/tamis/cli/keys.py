"""`tamis keys`: who may call a server."""

import typer

keys = typer.Typer(help="Keys of those who may call a server.", no_args_is_help=True)


@keys.callback()
def _root() -> None:
    """Keys of those who may call a server."""


@keys.command()
def make(
    name: str = typer.Argument(help="Who gets it: letters, digits, dots, dashes, underscores."),
    tokens: int | None = typer.Option(
        None,
        min=1,
        help="Tokens its caller may have waiting or running; no limit of its own by default.",
    ),
) -> None:
    """Make a key: it is shown once, on stderr; its line for `server.keys_file` goes to stdout.

    tamis keys make web >> keys.txt shows the key and lets it in. A server that runs sees it
    within two seconds, or at SIGHUP. Taking the line out withdraws the key.
    """
    from tamis.server.keys import make_key

    key, line = make_key(name, tokens)
    typer.echo(line)
    typer.echo(key, err=True)
