"""`tamis bench`: how fast a model is on this machine, and where the time goes."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from tamis.bench import WorkloadName
from tamis.cli.options import (
    DeviceOption,
    DtypeOption,
    MaxLengthOption,
    ModelOption,
    Name,
    OfflineOption,
    RevisionOption,
    RuntimeOption,
    ThreadsOption,
    model_options,
    the_model,
)
from tamis.errors import SettingsError
from tamis.settings import load_settings, model_settings

CONCURRENCY = (1, 4, 16)
PLOT_FORMATS = (".png", ".svg", ".pdf")


Concurrency = Annotated[
    list[int] | None,
    typer.Option(
        "--concurrency", min=1, help="Concurrent callers of a server; repeatable.  [1, 4 and 16]"
    ),
]
ServerUrlOption = Annotated[
    str | None, typer.Option("--url", help="Measure a running server instead of starting one.")
]
Server = Annotated[
    bool, typer.Option("--server", help="Start a server with the model, measure it and stop it.")
]
Rounds = Annotated[
    int, typer.Option("--rounds", min=1, help="Measured requests; with a server, per caller.")
]
BatchTokens = Annotated[
    int, typer.Option("--max-batch-tokens", min=0, help="Token budget; 0 means the model's own.")
]
Plot = Annotated[Path | None, typer.Option("--plot", help="Figure to write: .png, .svg or .pdf.")]


def bench(
    name: Name = None,
    workload: Annotated[
        WorkloadName, typer.Option("--workload", help="Lengths of the documents.")
    ] = "rag-mix",
    documents: Annotated[
        int, typer.Option("--documents", min=1, help="Documents per request.")
    ] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the texts.")] = 2,
    rounds: Rounds = 5,
    server: Server = False,
    url: ServerUrlOption = None,
    concurrency: Concurrency = None,
    max_batch_tokens: BatchTokens = 0,
    output: Annotated[Path | None, typer.Option("--output", help="JSON file to write.")] = None,
    plot: Plot = None,
    model: ModelOption = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    runtime: RuntimeOption = None,
    max_length: MaxLengthOption = None,
    threads: ThreadsOption = None,
    offline: OfflineOption = None,
) -> None:
    """Measure a model by itself, or behind a server.

    The model random-large is an XLM-RoBERTa-large with random weights, generated once and stored
    in the cache (2.3 GB). It is as fast as BAAI/bge-reranker-v2-m3; its ranking is meaningless.
    """
    model = the_model(name, model) if name or model else None
    given = model_options(locals() | {"name": None})
    if url == "":
        raise typer.BadParameter("--url is empty")
    if url is not None:
        _refuse_beside_url(given, server=server, max_batch_tokens=max_batch_tokens)
    if concurrency and url is None and not server:
        raise typer.BadParameter("--concurrency is of a server: add --server or --url")
    draw = _plotter(plot)  # before the measuring, which may take minutes
    _require_writable(output)
    from tamis.bench.own_process import ended_by_signals
    from tamis.bench.report import Asked, engine_report, own_server_report, server_report

    asked = Asked(workload, documents, seed, rounds)
    callers = list(dict.fromkeys(concurrency or CONCURRENCY))
    held = load_settings()
    settings = model_settings(given, held.model)
    budget = max_batch_tokens or held.scheduler.max_batch_tokens
    with ended_by_signals():
        if url is not None:
            report = server_report(asked, url, callers, _say)
        elif server:
            report = own_server_report(asked, settings, callers, _say, max_batch_tokens=budget)
        else:
            report = engine_report(asked, settings, _say, max_batch_tokens=budget)
    _print(dict(_figures(report)))
    if output is not None:
        _write(output, report)
    draw(report)


def _refuse_beside_url(given: Mapping[str, object], *, server: bool, max_batch_tokens: int) -> None:
    """A server that runs has its model and its options; none could be given to it."""
    if server:
        raise typer.BadParameter("--server starts a server, --url names one that runs: give one")
    names = ["model" if name == "name" else name for name in given]
    names += ["max_batch_tokens"] if max_batch_tokens else []
    if names:
        options = ", ".join("--" + name.replace("_", "-") for name in names)
        raise typer.BadParameter(f"{options}: the server at --url was started with its own")


def _plotter(path: Path | None) -> Callable[[dict[str, Any]], None]:
    """Draws a report into a file, or nothing where none was named.

    Raises:
        SettingsError: matplotlib is not installed, or the file cannot be written.
    """
    if path is None:
        return lambda _: None
    if path.suffix.lower() not in PLOT_FORMATS:
        raise SettingsError(f"cannot draw {path}: its name must end in {', '.join(PLOT_FORMATS)}")
    _require_writable(path)
    try:
        from tamis.bench.plot import draw
    except ImportError as error:
        raise SettingsError(
            "--plot needs matplotlib, which is not installed; `pip install tamis[bench]`"
        ) from error
    return lambda report: draw(report, path)


def _require_writable(path: Path | None) -> None:
    """Refuse a file that could not be written, before the measuring.

    Raises:
        SettingsError: it is a folder, or in none, or not to be written by us.
    """
    if path is None:
        return
    reason = ""
    if path.is_dir():
        reason = "it is a folder"
    elif not path.parent.is_dir():
        reason = f"there is no folder {path.parent}"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        reason = "no permission"
    if reason:
        raise SettingsError(f"cannot write {path}: {reason}")


def _say(step: str) -> None:
    """Tell a person who waits; nothing is drawn while the machine is measured."""
    if sys.stderr.isatty():
        typer.echo(f"{step} …", err=True)


def _write(path: Path, report: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def _figures(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every figure of a report by its dotted name."""
    if isinstance(value, dict):
        for key, part in msgspec.convert(value, dict[str, Any]).items():
            yield from _figures(part, f"{name}.{key}" if name else key)
    elif isinstance(value, float):
        yield name, f"{value:.5g}"
    else:
        yield name, "-" if value is None else str(value)


def _print(figures: Mapping[str, str]) -> None:
    if not sys.stdout.isatty():
        for name, figure in figures.items():
            typer.echo(f"{name}\t{figure}")
        return
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("figure")
    table.add_column("value", overflow="fold")
    for name, figure in figures.items():
        table.add_row(name, figure)
    Console().print(table)
