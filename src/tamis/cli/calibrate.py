"""`tamis models calibrate`: what int8 does to a model's ranking."""

import json
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import track

from tamis.cli.documents import read_lines
from tamis.cli.options import (
    MaxLengthOption,
    Name,
    NameOption,
    OfflineOption,
    RevisionOption,
    ThreadsOption,
    model_options,
    the_model,
)
from tamis.errors import InvalidFieldError, MissingFieldError, SettingsError
from tamis.settings import DtypeName, ModelSettings, load_settings, model_settings

if TYPE_CHECKING:  # it takes numpy with it
    from tamis.engine.calibration import CalibrationReport


class _Line(msgspec.Struct):
    """One line of the data."""

    query: Annotated[str, msgspec.Meta(min_length=1)]
    documents: Annotated[list[str], msgspec.Meta(min_length=1)]
    grades: list[Annotated[float, msgspec.Meta(ge=0)]] | None = None


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A query, its candidates and, where somebody has judged them, a grade for each."""

    query: str
    documents: list[str]
    grades: list[float] | None


def calibrate(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="JSONL: {query, documents, grades?} per line; a grade (0 or more) per document.",
        ),
    ],
    name: Name = None,
    model: NameOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    revision: RevisionOption = None,
    max_length: MaxLengthOption = None,
    threads: ThreadsOption = None,
    offline: OfflineOption = None,
) -> None:
    """Compare int8 with float32 on your queries, and store the report with the model.

    If it passes (at least 200 queries with more than 5 candidates each, Kendall's tau 0.98, the
    same top 5 for 95%, nDCG@10 within 0.005), dtype auto uses int8 on a CPU.
    """
    model = the_model(name, model)
    options = model_options(locals()) | {"device": "cpu", "runtime": "ctranslate2"}
    from tamis.engine.calibration import write_report

    queries = list(read_judged_queries(data))
    settings = model_settings(options, load_settings().model)
    folder = _int8_folder(settings)
    with _kept_in(folder):
        _require_writable(folder)  # now: scoring takes minutes
    report = _compared(settings, queries)
    with _kept_in(folder):
        write_report(folder, report)
    fields = msgspec.to_builtins(report) | {"verdict": report.verdict, "folder": str(folder)}
    if as_json:
        typer.echo(json.dumps(fields))
        return
    for label, value in fields.items():
        typer.echo(f"{label}\t{f'{value:.6g}' if isinstance(value, float) else value}")


def read_judged_queries(name: str) -> Iterator[JudgedQuery]:
    """Queries with their candidates from a JSONL file; `-` is standard input.

    Raises:
        MissingFieldError: there is no such file, or nothing in it.
        InvalidFieldError: a line is not what it must be.
        InvalidTextError: the file is not UTF-8.
    """
    found = 0
    for number, line in read_lines(name):
        try:
            parsed = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError as error:
            raise InvalidFieldError(f"{name} line {number}: {error}") from error
        if parsed.grades is not None and len(parsed.grades) != len(parsed.documents):
            raise InvalidFieldError(
                f"{name} line {number}: {len(parsed.grades)} grades for "
                f"{len(parsed.documents)} documents"
            )
        found += 1
        yield JudgedQuery(parsed.query, parsed.documents, parsed.grades)
    if not found:
        raise MissingFieldError(f"{name} has no queries: every line is empty")


def _int8_folder(settings: ModelSettings) -> Path:
    """Where the int8 form of the model stands, or will stand."""
    from tamis.engine.checkpoint import read_checkpoint
    from tamis.engine.ctranslate2.converted import converted_folder
    from tamis.engine.location import locate

    source = locate(settings.name, revision=settings.revision, offline=settings.offline)
    is_folder = Path(settings.name).is_dir()
    checkpoint = read_checkpoint(source, name=None if is_folder else settings.name)
    if checkpoint.converted_dtype is not None:
        raise SettingsError(
            f"{settings.name} is converted, and has no float32 to compare with; "
            "calibrate its source"
        )
    return converted_folder(checkpoint, dtype="int8", cache_dir=settings.cache_dir)


@contextmanager
def _kept_in(folder: Path) -> Generator[None]:
    """A report that cannot be kept is a matter of settings."""
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"cannot keep the report in {folder}: {error.strerror}; model.cache_dir must be a "
            "folder that can be written to"
        ) from error


def _require_writable(folder: Path) -> None:
    """Raise the OSError that writing into a folder, made here or not, would meet."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder if folder.exists() else folder.parent):
        pass


def _compared(settings: ModelSettings, queries: list[JudgedQuery]) -> "CalibrationReport":
    """Both dtypes on all queries."""
    from tamis.engine.calibration import QueryScores, compare
    from tamis.engine.device import processor_name

    float32, max_length = _logits(settings, "float32", queries)
    int8, _ = _logits(settings, "int8", queries)
    scores = [
        QueryScores(reference, found, query.grades)
        for reference, found, query in zip(float32, int8, queries, strict=True)
    ]
    return compare(scores, max_length=max_length, processor=processor_name())


def _logits(
    settings: ModelSettings, dtype: DtypeName, queries: list[JudgedQuery]
) -> tuple[list[Any], int]:
    """Logits of each query's documents, (n_documents,) each, and the tokens a pair could have."""
    from tamis.engine.loading import load_model
    from tamis.reranker import Reranker

    model = load_model(model_settings({"dtype": dtype}, settings))
    console = Console(stderr=True)
    with Reranker(model) as reranker:
        shown = track(
            queries, dtype, console=console, transient=True, disable=not console.is_terminal
        )
        scores = [
            reranker.score((query.query, document) for document in query.documents)
            for query in shown
        ]
    return scores, model.facts.max_length
