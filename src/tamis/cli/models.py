"""`tamis models`: fetch, check, convert and list models."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tamis.cli.calibrate import calibrate
from tamis.cli.options import Name, NameOption, OfflineOption, RevisionOption, the_model
from tamis.engine.checkpoint import Checkpoint, read_checkpoint
from tamis.engine.hub.local_cache import list_fetched
from tamis.engine.location import EMBEDDED_FOLDER, locate
from tamis.engine.location import pull as pull_model
from tamis.engine.manifest import verify_manifest
from tamis.errors import ModelError, ModelNotFoundError, SettingsError
from tamis.settings import (
    DEFAULT_MODEL,
    DtypeName,
    ModelSettings,
    load_settings,
    model_settings,
)

models = typer.Typer(
    help="Fetch, check, convert and list models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConvertedDtype = Annotated[
    DtypeName, typer.Option("--dtype", help="Precision of the converted model.")
]
models.command()(calibrate)


@models.command("list")
def list_models() -> None:
    """List the models on this machine: embedded, fetched and converted."""
    rows = _rows(load_settings().model.cache_dir)
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("model", "kind", "revision", "size", "folder", "calibration"):
        table.add_column(heading, justify="right" if heading == "size" else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@models.command()
def pull(
    name: Name = None,
    model: NameOption = None,
    revision: RevisionOption = None,
    offline: OfflineOption = None,
) -> None:
    """Fetch a model or its newer version from the Hub, and write its manifest."""
    name = the_model(name, model)
    if name == DEFAULT_MODEL or Path(name).is_dir():
        raise SettingsError(f"{name} is on this machine; only names of repositories are fetched")
    settings = _settings(name, revision, offline)
    folder = pull_model(name, revision=settings.revision, offline=settings.offline)
    checkpoint = read_checkpoint(folder)
    typer.echo(f"{name} {folder.name} is in {folder} ({_describe(checkpoint)})")


@models.command()
def verify(name: Name = None, model: NameOption = None, revision: RevisionOption = None) -> None:
    """Compare a model's files with its manifest, and check that tamis can run it."""
    name = the_model(name, model)
    settings = _settings(name, revision, offline=True)
    folder = locate(name, revision=settings.revision, offline=True)
    checkpoint = read_checkpoint(folder)
    n_files = verify_manifest(folder)
    if n_files is None:
        typer.echo(f"{name} can be run ({_describe(checkpoint)}); it has no manifest to compare")
    else:
        typer.echo(f"{name}: {n_files} files are what the manifest says ({_describe(checkpoint)})")


@models.command()
def convert(
    name: Name = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; default: the cache.")
    ] = None,
    dtype: ConvertedDtype = "auto",
    model: NameOption = None,
    revision: RevisionOption = None,
    offline: OfflineOption = None,
) -> None:
    """Convert a model for ctranslate2 into a folder that loads by itself."""
    name = the_model(name, model)
    from tamis.engine.ctranslate2.conversion import convert as convert_checkpoint
    from tamis.engine.ctranslate2.converted import converted_folder
    from tamis.engine.ctranslate2.precision import auto_dtype

    settings = _settings(name, revision, offline)
    source = locate(name, revision=settings.revision, offline=settings.offline)
    checkpoint = read_checkpoint(source, name=None if Path(name).is_dir() else name)
    verify_manifest(checkpoint.folder)
    if checkpoint.converted_dtype is not None:
        raise ModelNotFoundError(f"{name} is converted already; convert its source")
    wanted = auto_dtype(checkpoint, settings) if dtype == "auto" else dtype
    folder = output or converted_folder(checkpoint, dtype=wanted, cache_dir=settings.cache_dir)
    try:
        if output is not None and output.exists() and any(output.iterdir()):
            raise SettingsError(f"{output} is not empty; name a new folder")
        convert_checkpoint(checkpoint, folder, dtype=wanted)
    except OSError as error:
        raise SettingsError(f"cannot write {folder}: {error.strerror}") from error
    typer.echo(str(folder))


@models.command()
def tune(
    name: Name = None,
    dtype: ConvertedDtype = "auto",
    model: NameOption = None,
    revision: RevisionOption = None,
) -> None:
    """Measure a converted model's token budget and kernels on this processor.

    Nothing is measured at a start. A result is used only if it was clearly faster every time. The
    model is a converted folder, or the name of a model that the cache has converted.
    """
    name = the_model(name, model)
    from tamis.engine.ctranslate2.converted import converted_folder
    from tamis.engine.ctranslate2.opening import tune_converted
    from tamis.engine.ctranslate2.precision import auto_dtype
    from tamis.engine.device import usable_cores

    settings = _settings(name, revision, offline=True)
    source = locate(name, revision=settings.revision, offline=True)
    checkpoint = read_checkpoint(source, name=None if Path(name).is_dir() else name)
    wanted = auto_dtype(checkpoint, settings) if dtype == "auto" else dtype
    folder = source
    if checkpoint.converted_dtype is None:
        folder = converted_folder(checkpoint, dtype=wanted, cache_dir=settings.cache_dir)
    if not folder.is_dir():
        raise ModelNotFoundError(f"{name} has not been converted; `tamis models convert {name}`")
    verify_manifest(folder)
    threads = settings.threads or usable_cores()
    tuning = tune_converted(folder, threads=threads)
    for budget, speed in tuning.tokens_per_second.items():
        typer.echo(f"{budget}\t{speed:,.0f} tokens/s")
    for kernels, speed in tuning.kernels_tokens_per_second.items():
        typer.echo(f"{kernels}\t{speed:,.0f} tokens/s")
    chosen = tuning.kernels or "ctranslate2's own choice"
    typer.echo(f"token budget on this processor: {tuning.max_batch_tokens:,}", err=True)
    typer.echo(f"kernels on this processor: {chosen}", err=True)


def _settings(name: str, revision: str | None, offline: bool | None) -> ModelSettings:
    options = {"name": name, "revision": revision, "offline": offline}
    return model_settings(options, load_settings().model)


def _rows(cache_dir: Path) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (DEFAULT_MODEL, "embedded", "", _size(EMBEDDED_FOLDER), str(EMBEDDED_FOLDER), "")
    ]
    rows += [
        (name, "fetched", commit[:12], _size(folder), str(folder), "")
        for name, commit, folder in list_fetched()
    ]
    converted = sorted((cache_dir / "converted").glob("[!.]*"))
    return rows + [
        (
            *(folder.name.rsplit("-", 2)[0], "converted", "", _size(folder), str(folder)),
            _calibration(folder),
        )
        for folder in converted
    ]


def _calibration(folder: Path) -> str:
    from tamis.engine.calibration import read_report

    try:
        report = read_report(folder)
    except ModelError as error:
        return f"corrupt: {error}"
    return report.verdict if report else ""


def _size(folder: Path) -> str:
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{n_bytes / 1e6:,.0f} MB"


def _describe(checkpoint: Checkpoint) -> str:
    from tamis.engine.heads.reading import read_head

    kind = read_head(checkpoint).kind
    return (
        f"{checkpoint.n_layers} layers of {checkpoint.hidden_size}, {kind} head, "
        f"up to {checkpoint.max_length} tokens"
    )
