"""Rankings for people: tables on a terminal, plain lines in a pipe."""

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table

from tamis.types import RankedDocument, TokenMatch, document_text


def ranking_table(results: Sequence[RankedDocument], title: str | None = None) -> Table:
    """A table with a row for each document, best first."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("logit", justify="right")
    table.add_column("was", justify="right")
    table.add_column("document", overflow="fold")
    for place, ranked in enumerate(results, start=1):
        table.add_row(
            str(place),
            f"{ranked.score:.3f}",
            f"{ranked.logit:+.2f}",
            str(ranked.index + 1),
            escape(_one_line(ranked)) + _matches(ranked.explanation),
        )
    return table


def plain_lines(results: Iterable[RankedDocument]) -> Iterable[str]:
    """score, position in the input (from 1) and text, separated by tabs; then what matched."""
    for ranked in results:
        line = f"{ranked.score:.6f}\t{ranked.index + 1}\t{_one_line(ranked)}"
        matches = ranked.explanation
        yield line if matches is None else f"{line}\t{_squeezed(_matched(matches))}"


def _one_line(ranked: RankedDocument) -> str:
    return _squeezed(document_text(ranked.document, ranked.index))


def _squeezed(text: str) -> str:
    return " ".join(text.split()) if any(c in text for c in "\t\r\n") else text


def _matches(explanation: tuple[TokenMatch, ...] | None) -> str:
    return "" if explanation is None else f"\n[dim]{escape(_matched(explanation))}[/dim]"


def _matched(explanation: tuple[TokenMatch, ...]) -> str:
    return "  ".join(
        f"{match.query_token}→{match.document_token} {match.similarity:.2f}·{match.share:.0%}"
        for match in explanation
    )
