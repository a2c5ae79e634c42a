"""`tamis rank`: rerank lines of text in the shell."""

import json
import os
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Self, TypedDict

import typer
from rich.console import Console
from rich.progress import Progress

from tamis.cli.documents import read_documents
from tamis.cli.options import (
    DeviceOption,
    DtypeOption,
    MaxLengthOption,
    ModelOption,
    OfflineOption,
    RevisionOption,
    RuntimeOption,
    ThreadsOption,
    model_options,
)
from tamis.cli.tables import plain_lines, ranking_table
from tamis.settings import (
    CascadeSettings,
    ModelSettings,
    first_stage_settings,
    load_settings,
    model_settings,
)
from tamis.types import RankedDocument

if TYPE_CHECKING:
    from tamis.cascade import Cascade
    from tamis.engine.loading import LoadedModel

LONG_SECONDS = 1.0
"""Work that takes longer shows a progress bar."""

CLOSED_PIPE_EXIT_CODE = 141
"""What a shell says of a program that SIGPIPE has ended."""

Keep = Annotated[
    int | None,
    typer.Option(
        "--keep", min=0, help="Documents that the main model scores (a cascade); 0 means all."
    ),
]


def rank(
    query: Annotated[str, typer.Argument(help="The question.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="One document per line, JSONL with a `text`, or a JSON array; - is standard input."
        ),
    ] = None,
    top_n: Annotated[
        int | None, typer.Option("--top-n", "-n", min=1, help="Number of best documents to print.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0.0, max=1.0, help="Lowest score to print.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object per line, with `logit` and `score` (0 to 1)."
        ),
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which words matched (late interaction).")
    ] = False,
    model: ModelOption = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    runtime: RuntimeOption = None,
    max_length: MaxLengthOption = None,
    threads: ThreadsOption = None,
    offline: OfflineOption = None,
    keep: Keep = None,
) -> None:
    """Sort documents by how well they answer a QUERY, best first.

    Defaults come from the variables TAMIS_MODEL__* and TAMIS_CASCADE__*.
    """
    given = model_options(locals())
    from tamis.engine.loading import load_model
    from tamis.reranker import Reranker

    held = load_settings()
    settings = model_settings(given, held.model)
    documents = read_documents(files or [])
    with Console(stderr=True) as console, _BatchProgress(console, len(documents)) as progress:
        reranker = Reranker(
            load_model(settings),
            max_batch_tokens=held.scheduler.max_batch_tokens,
            on_batch=lambda report: progress.advance(report.n_pairs),
            **_cascade_options(held.cascade, keep, settings),
        )
        results = reranker.rank(query, documents, top_n=top_n, threshold=threshold, explain=explain)
    if explain and results and all(ranked.explanation is None for ranked in results):
        typer.echo(
            f"tamis: --explain: {reranker.model.facts.name} cannot say which words matched here; "
            "models that read query and document apart (tamis-mini) can",
            err=True,
        )
    with _reader_may_leave():
        _print(results, as_json=as_json)


@contextmanager
def _reader_may_leave() -> Generator[None]:
    """End as a shell expects where a reader, `| head -1`, has what it wanted."""
    try:
        yield
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        raise typer.Exit(CLOSED_PIPE_EXIT_CODE) from error


class _CascadeOptions(TypedDict, total=False):
    """`Reranker`'s options of a cascade."""

    cascade: "Cascade"
    first_stage: "LoadedModel"


def _cascade_options(
    held: CascadeSettings, keep: int | None, second: ModelSettings
) -> _CascadeOptions:
    """None of them without a cascade; else the first stage is loaded."""
    from tamis.cascade import Cascade
    from tamis.engine.loading import load_model

    n_kept = held.keep if keep is None else keep
    if not n_kept:
        return {}
    return {
        "cascade": Cascade(n_kept, held.margin),
        "first_stage": load_model(first_stage_settings(held.model, second)),
    }


def _print(results: list[RankedDocument], *, as_json: bool) -> None:
    if as_json:
        for ranked in results:
            typer.echo(_json_line(_json_object(ranked)))
    elif sys.stdout.isatty():
        Console().print(ranking_table(results))
    else:
        for line in plain_lines(results):
            typer.echo(line)


def _json_line(fields: dict[str, object]) -> str:
    """JSON in plain characters; a lone surrogate, which UTF-8 has not, goes out as its escape."""
    line = json.dumps(fields, ensure_ascii=False)
    return line.encode("utf-8", "backslashreplace").decode("utf-8")


def _json_object(ranked: RankedDocument) -> dict[str, object]:
    document = ranked.document
    fields: dict[str, object] = {
        "index": ranked.index,
        "document": dict(document) if isinstance(document, Mapping) else document,
        "logit": ranked.logit,
        "score": ranked.score,
    }
    if ranked.scored_by is not None:
        fields["scored_by"] = ranked.scored_by
    if ranked.explanation is not None:
        fields["explanation"] = [asdict(match) for match in ranked.explanation]
    return fields


class _BatchProgress:
    """A bar that appears on a terminal once the work proves long."""

    def __init__(self, console: Console, n_pairs: int) -> None:
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("reranking", total=n_pairs)
        self._started = time.monotonic()

    def advance(self, n_pairs: int) -> None:
        """Count the pairs of a batch."""
        if time.monotonic() - self._started > LONG_SECONDS:
            self._progress.start()
        self._progress.advance(self._task, n_pairs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
