import io

from rich.console import Console

from tamis.cli.tables import plain_lines, ranking_table
from tamis.types import RankedDocument, TokenMatch

MATCH = TokenMatch("panda", "[bear]", (0, 4), similarity=0.91, share=0.25)


def ranked(document: str | dict[str, object], *matches: TokenMatch) -> RankedDocument:
    return RankedDocument(2, document, logit=-1.5, score=0.182, explanation=matches or None)


def drawn(*results: RankedDocument) -> str:
    console = Console(file=io.StringIO(), width=60)
    console.print(ranking_table(results))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_plain_line_is_score_position_and_text() -> None:
    assert list(plain_lines([ranked("a text")])) == ["0.182000\t3\ta text"]


def test_a_plain_line_stays_one_line() -> None:
    (line,) = plain_lines([ranked({"text": "a\ttext\nof\r\nmany  lines"})])
    assert line == "0.182000\t3\ta text of many lines"


def test_what_matched_is_a_column_of_its_own_in_a_pipe() -> None:
    assert list(plain_lines([ranked("a bear", MATCH, MATCH)])) == [
        "0.182000\t3\ta bear\tpanda→[bear] 0.91·25%  panda→[bear] 0.91·25%"
    ]


def test_a_row_has_place_score_logit_and_position_from_one() -> None:
    row = drawn(ranked("a text")).splitlines()[-1]
    assert [cell.strip() for cell in row.split("│")] == ["1", "0.182", "-1.50", "3", "a text"]


def test_a_document_is_shown_as_it_is_and_not_as_markup() -> None:
    assert "[bold]a[/bold] [/]" in drawn(ranked("[bold]a[/bold] [/]"))


def test_a_long_document_is_folded_and_not_cut() -> None:
    text = "word" * 40
    assert "".join(drawn(ranked(text)).split()).replace("│", "").count("word") == 40


def test_matches_stand_below_their_document() -> None:
    assert "panda→[bear] 0.91·25%" in drawn(ranked("a bear", MATCH))
