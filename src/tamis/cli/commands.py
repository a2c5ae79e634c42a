"""All verbs of the command, one file each."""

import typer

import tamis
from tamis.cli.baseline import baseline
from tamis.cli.bench import bench
from tamis.cli.cache import cache
from tamis.cli.demo import demo
from tamis.cli.keys import keys
from tamis.cli.models import models
from tamis.cli.rank import rank
from tamis.cli.serve import serve
from tamis.cli.settings import settings
from tamis.cli.usage import UsageError, fail_usage

app = typer.Typer(
    name="tamis",
    help="The reranking server between retrieval and the LLM.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Options that the settings tree declares are read by it, not by typer
_SETTINGS_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}

app.command()(rank)
app.command(context_settings=_SETTINGS_OPTIONS)(serve)
app.command(context_settings=_SETTINGS_OPTIONS)(settings)
app.command()(demo)
app.command()(bench)
app.add_typer(models, name="models")
app.add_typer(keys, name="keys")
app.add_typer(cache, name="cache")
app.add_typer(baseline, name="baseline")


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(f"tamis {tamis.__version__}")
        raise typer.Exit


def run() -> int:
    """Run the verb that the arguments name; returns its exit code."""
    try:
        return app(prog_name="tamis", standalone_mode=False) or 0
    except typer.Abort:
        return 1
    except UsageError as error:
        fail_usage(error)
