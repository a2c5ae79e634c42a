"""`tamis baseline`: record ranking statistics, and compare later ones with them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from tamis.cli.calibrate import JudgedQuery, read_judged_queries
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
from tamis.errors import SettingsError
from tamis.settings import ModelSettings, load_settings, model_settings

if TYPE_CHECKING:  # they take numpy with them
    from tamis.relevance.baseline import Snapshot
    from tamis.relevance.drift import Verdict
    from tamis.relevance.signals import Ranking

TIMEOUT_SECONDS = 10.0
CROSSED = 1
"""Exit code of a comparison that found drift."""

baseline = typer.Typer(
    help="Record ranking statistics and compare them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

UrlOption = Annotated[
    str | None, typer.Option("--url", help="Server to take the newest requests from.")
]
KeyFileOption = Annotated[
    Path | None, typer.Option("--key-file", help="File with your key for that server.")
]


@baseline.callback()
def _root() -> None:
    """Record ranking statistics and compare them."""


@baseline.command()
def record(
    file: Annotated[Path, typer.Argument(help="File to write, for `relevance.baseline`.")],
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="JSONL: {query, documents} per line, in retrieval order."),
    ] = None,
    model: ModelOption = None,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    runtime: RuntimeOption = None,
    max_length: MaxLengthOption = None,
    threads: ThreadsOption = None,
    offline: OfflineOption = None,
) -> None:
    """Record a server's newest requests, or score your own queries with a model.

    Record a few hundred normal requests while the ranking is good. Model options apply to --data;
    only a server knows both stages of a cascade.
    """
    given = model_options(locals())
    from tamis.relevance.baseline import baseline_of, write_baseline
    from tamis.relevance.drift import LEAST_REQUESTS

    if (url is None) == (data is None):
        raise SettingsError("either --url or --data says where the rankings come from")
    if url is not None:
        found = fetch_snapshot(url, key_file)
    else:
        found = _scored(given, list(read_judged_queries(data or "")))
    write_baseline(file, baseline_of(found))
    typer.echo(f"{file}\t{found.n_requests} requests\t{found.model}")
    if found.n_requests < LEAST_REQUESTS:
        few = f"{found.n_requests} requests are too few; {LEAST_REQUESTS} are needed to compare"
        typer.echo(few, err=True)


@baseline.command()
def compare(
    file: Annotated[Path, typer.Argument(help="The baseline.")],
    other: Annotated[Path | None, typer.Argument(help="Another baseline to compare with.")] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
) -> None:
    """Compare a baseline with a server's newest requests, or with another baseline.

    Exits with 1 if a signal is beyond its line.
    """
    from tamis.relevance.baseline import read_baseline
    from tamis.relevance.drift import LEAST_REQUESTS
    from tamis.relevance.drift import compare as compared

    expected = read_baseline(file).rankings
    if (url is None) == (other is None):
        raise SettingsError("either --url or another file says what to compare with")
    found = read_baseline(other).rankings if other else fetch_snapshot(url or "", key_file)
    verdicts = compared(expected, found)
    if not verdicts:
        fewest = min(expected.n_requests, found.n_requests)
        raise SettingsError(f"{fewest} requests are too few; {LEAST_REQUESTS} are needed")
    if expected.model != found.model:
        typer.echo(f"the baseline is of {expected.model}, and this is {found.model}", err=True)
    _show(verdicts, as_json=as_json)
    if any(verdict.crossed for verdict in verdicts):
        raise typer.Exit(CROSSED)


def fetch_snapshot(url: str, key_file: Path | None = None) -> "Snapshot":
    """The newest requests of a server.

    Args:
        url: Where it is.
        key_file: Holds a key for it; None where it asks for none.

    Raises:
        SettingsError: it does not answer, or has ranked nothing yet.
    """
    import httpx2

    from tamis.relevance.baseline import Snapshot, is_whole

    class Relevance(msgspec.Struct):
        windows: list[Snapshot]

    class StatsExcerpt(msgspec.Struct):
        relevance: Relevance

    headers = {} if key_file is None else {"x-api-key": _read_key(key_file)}
    address = f"{url.rstrip('/')}/v1/stats"
    try:
        answer = httpx2.get(address, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False)
        answer.raise_for_status()
        windows = msgspec.json.decode(answer.content, type=StatsExcerpt).relevance.windows
    except httpx2.HTTPStatusError as error:
        raise SettingsError(f"{address} answers {error.response.status_code}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, msgspec.DecodeError, RecursionError) as error:
        raise SettingsError(
            f"{address} does not answer as tamis does: {error or type(error).__name__}"
        ) from error
    if not windows or not is_whole(windows[0]):
        raise SettingsError(f"{url} has ranked nothing yet; send requests first")
    return windows[0]


def _read_key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no key"
        raise SettingsError(f"cannot read {path}: {reason}") from error


def _scored(given: dict[str, object], queries: Sequence[JudgedQuery]) -> "Snapshot":
    """All queries ranked by a model here."""
    from tamis.relevance.signals import read
    from tamis.relevance.window import Window

    held = load_settings()
    window = Window(len(queries), held.relevance.threshold)
    name = ""
    for ranking in _rankings(model_settings(given, held.model), queries):
        name = ranking.model
        reading = read(ranking)
        if reading is not None:
            window.add(reading)
    return window.snapshot(name)


def _rankings(settings: ModelSettings, queries: Sequence[JudgedQuery]) -> Iterator["Ranking"]:
    from tamis.engine.loading import load_model
    from tamis.relevance.signals import Ranking
    from tamis.scheduler.scheduler import score_now

    model = load_model(settings)
    try:
        for query in queries:
            pairs = model.tokenizer.encode(query.query, query.documents)
            logits = score_now(model.backend, pairs, max_batch_tokens=model.facts.max_batch_tokens)
            yield Ranking(
                model=model.facts.name,
                dialect="native",
                caller="",
                logits=logits.tolist(),
                n_truncated=sum(pair.truncated for pair in pairs),
                n_tokens=sum(pair.n_tokens for pair in pairs),
                n_shown=len(pairs),
            )
    finally:
        model.backend.close()


def _show(verdicts: Sequence["Verdict"], *, as_json: bool) -> None:
    """A table on a terminal, tabs in a pipe."""
    if as_json:
        for verdict in verdicts:
            typer.echo(json.dumps(msgspec.to_builtins(verdict)))
        return
    heads = ("signal", "baseline", "now", "distance", "line", "")
    rows = [_cells(verdict) for verdict in verdicts]
    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(show_edge=False, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in ("signal", "") else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _cells(verdict: "Verdict") -> tuple[str, ...]:
    numbers = (verdict.baseline, verdict.now, verdict.distance, verdict.line)
    shown = ("" if number is None else f"{number:.3f}" for number in numbers)
    return (verdict.signal, *shown, "crossed" if verdict.crossed else "ok")
