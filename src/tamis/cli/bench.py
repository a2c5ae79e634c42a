"""`tamis bench`: how fast a model is on this machine, and where the time goes."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from tamis.bench import WorkloadName
from tamis.cli.options import Device, Dtype, MaxLength, Model, Offline, Revision, Runtime, Threads
from tamis.errors import SettingsError
from tamis.settings import ModelSettings, load_settings, model_settings

RANDOM_LARGE = "random-large"
"""Stands for an XLM-RoBERTa-large of random weights, written to the cache once (2.3 GB)."""


def bench(
    workload: Annotated[
        WorkloadName, typer.Option("--workload", help="Lengths of the documents.")
    ] = "rag-mix",
    documents: Annotated[int, typer.Option("--documents", min=1, help="In each request.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the texts.")] = 2,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Requests measured; with --url, per caller.")
    ] = 5,
    url: Annotated[
        str | None, typer.Option("--url", help="Measure a running server and load no model.")
    ] = None,
    concurrency: Annotated[
        list[int] | None,
        typer.Option("--concurrency", min=1, help="Callers at a time, with --url; repeatable."),
    ] = None,
    max_batch_tokens: Annotated[
        int, typer.Option("--max-batch-tokens", min=0, help="0 takes the model's own.")
    ] = 0,
    output: Annotated[Path | None, typer.Option("--output", help="JSON file to write.")] = None,
    model: Model = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    runtime: Runtime = None,
    max_length: MaxLength = None,
    threads: Threads = None,
    offline: Offline = None,
) -> None:
    """Measure a model in this process, or a server that runs.

    The model random-large is an XLM-RoBERTa-large of random weights, which is made and kept
    in the cache (2.3 GB): as fast as BAAI/bge-reranker-v2-m3, and good for nothing else.
    """
    asked = {"workload": workload, "documents": documents, "seed": seed, "rounds": rounds}
    if url is not None:
        report = _server(url, asked, concurrency or [1, 4, 16])
    else:
        options = {
            "name": model,
            "revision": revision,
            "device": device,
            "dtype": dtype,
            "runtime": runtime,
            "max_length": max_length,
            "threads": threads,
            "offline": offline,
        }
        settings = model_settings(options, load_settings().model)
        report = _engine(settings, asked, max_batch_tokens)
    report = {"asked": asked, "environment": _environment(), **report}
    if output is not None:
        _write(output, report)
    _print(dict(_figures(report)))


def _engine(
    settings: ModelSettings, asked: Mapping[str, Any], max_batch_tokens: int
) -> dict[str, Any]:
    from tamis.bench.engine import measure_engine
    from tamis.bench.gemm import read_encoder_size
    from tamis.engine.loading import load_model
    from tamis.engine.location import locate

    if settings.name == RANDOM_LARGE:
        settings = model_settings({"name": str(_random_large(settings))}, settings)
    model = load_model(settings)
    folder = locate(settings.name, revision=settings.revision, offline=settings.offline)
    try:
        measured = measure_engine(
            model,
            read_encoder_size(folder),
            _workload(asked, 0),
            rounds=asked["rounds"],
            max_batch_tokens=max_batch_tokens,
        )
    finally:
        model.backend.close()
    return {
        "model": model.name,
        "runtime": model.runtime,
        "device": model.device,
        "dtype": model.dtype,
        "max_batch_tokens": max_batch_tokens or model.max_batch_tokens,
        "engine": asdict(measured),
    }


def _server(url: str, asked: Mapping[str, Any], concurrency: list[int]) -> dict[str, Any]:
    from tamis.bench.server import measure_server

    reports: dict[str, Any] = {}
    for callers in concurrency:
        workloads = [_workload(asked, number) for number in range(asked["rounds"] * callers)]
        reports[f"concurrency_{callers}"] = asdict(
            measure_server(url, workloads, concurrency=callers)
        )
    return {"url": url, "server": reports}


def _workload(asked: Mapping[str, Any], number: int) -> Any:
    from tamis.bench.workloads import make_workload

    return make_workload(asked["workload"], asked["documents"], seed=asked["seed"] + number)


def _random_large(settings: ModelSettings) -> Path:
    from tamis.bench.random_checkpoint import write_random_checkpoint

    folder = settings.cache_dir / RANDOM_LARGE
    if not (folder / "tokenizer_config.json").exists():  # written last
        write_random_checkpoint(folder)
    return folder


def _environment() -> dict[str, Any]:
    from importlib.metadata import version

    from tamis.engine.device import processor_name, usable_cores

    packages = ("tamis", "ctranslate2", "numpy", "tokenizers")
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        **{name: version(name) for name in packages},
    }


def _write(path: Path, report: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def _figures(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every figure of a report by its dotted name."""
    if isinstance(value, dict):
        for key, part in msgspec.convert(value, dict[str, Any]).items():
            yield from _figures(part, f"{name}.{key}" if name else key)
    else:
        yield name, f"{value:.5g}" if isinstance(value, float) else str(value)


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
